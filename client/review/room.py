"""The review room: what readers see of the cases, and what they say of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from client.answers.answered import Answered
from client.answers.log import AnswerLog
from client.cases import queries
from client.cases.case import Case, as_case
from client.cases.status import check_label
from client.cases.store import CaseStore
from client.review.detail import CaseDetail, Read, detail
from client.review.flagging import flags_of
from client.review.history import History, Pool, campaigns, case_events
from client.review.judging import give_opinion, set_aside
from client.review.opinions import SeenAnswer
from client.review.outcomes import Outcomes, outcomes
from client.review.picture import screen_png, stored_image
from client.review.proposal import refuse_blind
from client.review.queue import QueuePage, QueueState, queue_counts, queue_rows, seen_by
from client.review.recording import opinions
from client.review.submission import Submission, check_complete
from client.settings import SiteSettings
from client.withdrawal import Withdrawal, withdraw_case
from client.withdrawal_report import kept_releases
from common.recipe import Recipe

log = logging.getLogger(__name__)


class ReviewRoom:
    """Queue, opinions, flags, history and outcomes of one site's task.

    Its methods block. Each takes the recipe that is served, for its classes.

    Parameters
    ----------
    settings : SiteSettings
    store : CaseStore
    answers : AnswerLog
    """

    def __init__(self, settings: SiteSettings, store: CaseStore, answers: AnswerLog) -> None:
        self._settings, self._store, self._answers = settings, store, answers
        self._rules = store.rules
        self._transactions = store.transactions

    def queue(
        self,
        reader: str,
        *,
        state: QueueState | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> QueuePage:
        """Return part of the queue as a reader sees it, the newest case last.

        Raises
        ------
        NotFound
            If there is no case ``after``.
        StoreError
            If the database cannot be read; so for all methods.
        """
        task = self._settings.task
        with self._transactions.reading() as session:
            rows = queue_rows(session, task, state=state, after=after, limit=limit + 1)
            shown = rows[:limit]
            newest = self._newest([row.case.pixels for row in shown])
            cases = seen_by(session, shown, newest, reader=reader, rules=self._rules)
            counts = queue_counts(session, task)
        more = cases[-1].case_id if len(rows) > limit else None
        return QueuePage(cases, more, counts)

    def detail(self, case_id: str, reader: str, recipe: Recipe) -> CaseDetail:
        """Return a case as a reader may see it; `NotFound` if there is none."""
        with self._transactions.reading() as session:
            row, _ = queries.row(session, case_id)
            said = self._said(row.pixels)
            read = Read.of(session, case_id, said[-1] if said else None, recipe)
            near = self._store.look_alikes(session, row)
            return detail(session, read, said, near, reader=reader, rules=self._rules)

    def flag_codes(self, case_id: str) -> tuple[str, ...]:
        """Return the codes of a case's flags that nobody set aside, those that block first."""
        with self._transactions.reading() as session:
            kept = flags_of(session, [case_id], self._rules).get(case_id, ())
        return tuple(flag.code for flag in kept if flag.open)

    def give(self, case_id: str, reader: str, said: Submission, recipe: Recipe) -> CaseDetail:
        """Keep a reader's opinion, and return the case as it is then.

        Parameters
        ----------
        case_id, reader : str
        said : Submission
            ``agree`` needs either ``seen``, or the label that it agrees with; ``correct`` needs
            a label; ``unsure`` has none. With ``seen``, a case that is no longer as the reader
            was shown it is not touched. The same opinion said again changes nothing.
        recipe : Recipe

        Raises
        ------
        NotFound
            If there is no such case.
        CaseRefused
            ``label-unknown``, ``opinion-incomplete``, ``review-changed`` or ``case-withdrawn``.
        """
        check_complete(said)
        if said.label is not None:
            check_label(said.label, recipe.classes)
        answer = self._newest_of(self._pixels(case_id))
        with self._transactions.writing() as session:
            read = Read.of(session, case_id, answer, recipe)
            give_opinion(session, read, said, reader=reader, rules=self._rules)
            status = read.row.status
        log.info("event=opinion case=%s verdict=%s status=%s", case_id, said.verdict, status)
        return self.detail(case_id, reader, recipe)

    def dismiss(self, case_id: str, code: str, reader: str, recipe: Recipe) -> CaseDetail:
        """Set a flag aside; a case that it held goes on. Done again, nothing changes.

        Raises
        ------
        NotFound
            If there is no such case, or it has no such flag.
        CaseRefused
            ``case-withdrawn``.
        """
        answer = self._newest_of(self._pixels(case_id))
        with self._transactions.writing() as session:
            set_aside(session, case_id, code, reader=reader, answer=answer, rules=self._rules)
        log.info("event=flag-dismissed case=%s code=%s", case_id, code)
        return self.detail(case_id, reader, recipe)

    def withdraw(self, case_id: str, reader: str) -> Withdrawal:
        """Withdraw a case, its patient staying; say what it may have reached. `NotFound`."""
        self._answers.flush()  # what waits would be written after the deletion
        return withdraw_case(self._settings, case_id, by=reader)

    def image(self, case_id: str, *, side: int) -> bytes:
        """Return a case's picture as PNG, its longer side at most ``side`` pixels.

        Raises
        ------
        NotFound
            If there is no such case, or it was withdrawn: ``case-withdrawn``.
        """
        with self._transactions.reading() as session:
            case = as_case(*queries.row(session, case_id))
        return screen_png(stored_image(self._store, case), side=side)

    def whole_image(self, case_id: str, *, reader: str) -> bytes:
        """Return a case's stored file, for the model to be asked about by a reader.

        Raises
        ------
        NotFound
            As `image`.
        CaseRefused
            With code ``reads-blind``: they are to judge the case before they hear of the model.
        """
        with self._transactions.reading() as session:
            row, split = queries.row(session, case_id)
            refuse_blind(session, row, opinions(session, case_id), reader, self._rules)
            case = as_case(row, split)
        return stored_image(self._store, case)

    def history(self, case_id: str, *, reader: str | None = None) -> History:
        """Return what happened to a case, and which campaigns it may have reached.

        Parameters
        ----------
        case_id : str
        reader : str, optional
            Who must not be told what others said of a case that they are yet to judge.

        Raises
        ------
        NotFound
            If there is no such case.
        CaseRefused
            With code ``reads-blind``.
        """
        with self._transactions.reading() as session:
            row, _ = queries.row(session, case_id)
            said = opinions(session, case_id)
            if reader is not None:
                refuse_blind(session, row, said, reader, self._rules)
            events = case_events(session, row, said, self._said(row.pixels))
            now = row.label
        pools = tuple(self._pool(key, rounds, now) for key, rounds in campaigns(events).items())
        return History(tuple(events), pools)

    def outcomes(
        self,
        recipe: Recipe,
        *,
        version: int | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Outcomes:
        """Return confirmed cases beside the answers before; see `client.review.outcomes`."""
        self._answers.flush()
        positive = recipe.decision.positive_classes
        with self._transactions.reading() as session:
            return outcomes(
                session, self._settings.task, positive, version=version, since=since, until=until
            )

    def confirm(self, case_id: str, label: str, *, classes: Sequence[str], reader: str) -> Case:
        """Keep the opinion of one who confirms a case outside the queue.

        Raises as `CaseStore.confirm`.
        """
        answer = self._newest_of(self._pixels(case_id))
        return self._store.confirm(
            case_id,
            label,
            classes=classes,
            reader=reader,
            saw=SeenAnswer.of(answer),
            warnings=() if answer is None else answer.warnings,
        )

    def newest_answer(self, pixels: str) -> Answered | None:
        """Return the newest answer about an image, by the digest of its pixels."""
        return self._newest_of(pixels)

    def _pixels(self, case_id: str) -> str:
        with self._transactions.reading() as session:
            return queries.row(session, case_id)[0].pixels

    def _said(self, pixels: str) -> tuple[Answered, ...]:
        task = self._settings.task
        return tuple(a for a in self._answers.for_pixels(pixels) if a.task == task)

    def _newest_of(self, pixels: str) -> Answered | None:
        said = self._said(pixels)
        return said[-1] if said else None

    def _newest(self, pixels: Sequence[str]) -> dict[str, Answered]:
        task = self._settings.task
        return {a.pixels: a for a in self._answers.for_many(pixels) if a.task == task}

    def _pool(
        self, key: tuple[str, str, str | None], rounds: Sequence[int], now: str | None
    ) -> Pool:
        campaign, kind, label = key
        side: Literal["train", "holdout"] = "train" if kind == "training-pool" else "holdout"
        return Pool(
            campaign=campaign,
            side=side,
            rounds=tuple(sorted(set(rounds))),
            label=label,
            outdated=label is not None and label != now,
            releases=kept_releases(self._settings, self._settings.task, campaign)
            if side == "train"
            else (),
        )
