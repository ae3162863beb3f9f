"""One exchange with the sites: requests out, replies in, and who failed and why.

No wait is endless: sites have a time to connect in, each has a deadline after its own pace
(`server.rounds.site_pace`), and attempts are counted. Within a round, attempts add up: a site
whose answer was accepted is not asked again (its privacy is spent), one that is still at work is
given more time, and only one that failed is sent a new plan. A refusal or a bad update stands for
the round. While a quorum is out of reach nobody is asked to train, since that would spend privacy
for nothing.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from flwr.app import Message

from common.tracing import Place, trace_exchange
from server.audit import note_kept
from server.registry.records import Outcome
from server.rounds.clock import Backoff
from server.rounds.control_variates import SentCorrection
from server.rounds.exchange_records import Collected, Request
from server.rounds.kept_answers import AnswerHeader
from server.rounds.link import Link
from server.rounds.replies import Answer, Take, contribution_of, is_caught, read_answer
from server.rounds.sent_requests import SentRequest, new_request, pull_replies, push_request
from server.rounds.site_pace import SitePace
from server.rounds.update_checks import Expected

logger = logging.getLogger(__name__)

NOT_CONNECTED = "not-connected"
"""The code of a site that was to be asked, and was not there."""

PAUSE_SECONDS = (1.0, 4.0, 16.0)
"""Between attempts; the last one again and again."""


class Exchange:
    """One round's requests and replies.

    Parameters
    ----------
    link : Link
        The campaign's.
    request : Request
        Whose round has its row in the registry; contributions are written there as they come.
    take : callable
        What becomes of a reply that answers its request.
    """

    def __init__(self, link: Link, request: Request, take: Take) -> None:
        self._link = link
        self._request = request
        self._take = take
        self._collected = Collected(request.quorum)
        self._open: dict[str, SentRequest] = {}
        self._settled: set[str] = set()
        registry, campaign = link.registry, request.plan.campaign
        told = registry.contributions(campaign)
        plan, evaluations = request.plan, request.plan.recipe.federation.evaluations
        alike = plan.purpose == "train" and not (plan.evaluate and evaluations > 0)
        self._pace = SitePace(
            told,
            maximum=link.settings.round_deadline_seconds,
            alike=alike,
            since=link.settings.phase(request.number).first_round,
        )
        base = request.step.header.base_digest if request.step is not None else None
        self._holders = {c.site for c in told if c.receipt and c.receipt.base_digest == base}
        before = [c for c in told if c.round == request.number]
        self._collected.caught |= {c.site for c in before if is_caught(c)}
        self._earlier = max((c.attempt for c in before), default=0)
        self._asked = {c.site for c in before if c.outcome != "absent"}
        accepted = {c.site: c for c in before if c.outcome == "accepted"}
        for site in accepted.keys() - {header.site for header in request.kept}:
            # What a failed campaign had was removed; the site sends it again, and counts once.
            dropped = replace(accepted[site], outcome="failed", code="answer-dropped")
            registry.record_contribution(dropped)
        for header in request.kept:
            self._use(header, known=header.site in accepted)

    def collect(self) -> Collected:
        """Ask all connected sites until a quorum succeeded, or attempts are used up."""
        attempts = self._link.settings.attempts
        for number in range(1, attempts + 1):
            self._ask(self._earlier + number)
            self._receive(number)
            if self._collected.met or self._nobody_left():
                break
            if number < attempts:
                pause = PAUSE_SECONDS[min(number, len(PAUSE_SECONDS)) - 1]
                self._link.clock.sleep(pause)
        for opened in self._open.values():
            self._record(opened, Answer("late", "deadline"))
        return self._collected

    def _nobody_left(self) -> bool:
        """Tell whether all who could ever answer have: to ask again would find nobody."""
        reachable = self._link.directory.reachable()
        return reachable is not None and not self._open and reachable <= self._settled

    def _ask(self, attempt: int) -> None:
        busy = self._settled | {opened.site for opened in self._open.values()}
        hopeful = len(self._collected.accepted) + len(self._open)
        connected = self._link.directory.wait(
            lambda found: hopeful + len(found.keys() - busy) >= self._request.quorum,
            everyone=False,
            seconds=self._link.settings.site_wait_seconds,
        )
        free = {site: node for site, node in connected.items() if site not in busy}
        for site in sorted(self._link.directory.expected() - connected.keys() - busy):
            self._record(self._request_to(site, 0, attempt), Answer("absent", NOT_CONNECTED))
        if self._request.plan.purpose == "train" and hopeful + len(free) < self._request.quorum:
            logger.warning("quorum-out-of-reach round=%d", self._request.number)
            return
        for site, node in free.items():
            self._send(site, node, attempt)

    def _request_to(
        self,
        site: str,
        node: int,
        attempt: int,
        *,
        stepped: bool = False,
        correction: SentCorrection | None = None,
        again: bool = False,
    ) -> SentRequest:
        return new_request(
            self._link,
            self._request.plan,
            self._request.shapes,
            site=site,
            node=node,
            attempt=attempt,
            stepped=stepped,
            correction=correction,
            again=again,
        )

    def _send(self, site: str, node: int, attempt: int) -> None:
        step = self._request.step if site in self._holders else None
        correction = self._request.correction(site)
        request = self._request_to(
            site,
            node,
            attempt,
            stepped=step is not None,
            correction=correction,
            again=self._request.resumed or site in self._asked,
        )
        self._asked.add(site)
        model = step or self._request.tensors
        identifier = push_request(self._link, request, model, number=self._request.number)
        if identifier:
            self._open[identifier] = request
        else:
            self._record(request, Answer("failed", "not-delivered"))

    def _receive(self, number: int) -> None:
        clock, begin = self._link.clock, self._link.clock.monotonic()
        backoff = Backoff()
        while self._open:
            for message in pull_replies(self._link, self._open):
                opened = self._open.pop(message.metadata.reply_to_message_id, None)
                if opened is None:
                    logger.warning("reply-unasked round=%d", self._request.number)
                    continue
                backoff.reset()
                if self._settle(opened, message) != "failed":
                    self._settled.add(opened.site)
            allowed = (self._pace.allowed(o.site, number) for o in self._open.values())
            remaining = begin + max(allowed, default=0.0) - clock.monotonic()
            if not self._open or remaining <= 0:
                return
            clock.sleep(backoff.interval(remaining))

    def _settle(self, opened: SentRequest, message: Message) -> Outcome:
        answer = read_answer(self._link, opened, message, self._take)
        if answer.wants_model:
            self._holders.discard(opened.site)
            self._send(opened.site, opened.node, opened.attempt)  # the same round, the whole model
            return "failed"
        if answer.evaluation is not None:
            self._collected.evaluations[opened.site] = answer.evaluation
        return self._record(opened, answer)

    def _use(self, header: AnswerHeader, *, known: bool) -> None:
        """Count an answer that was kept, and complete the record where a crash cut it off."""
        site, receipt, plan = header.site, header.receipt, self._request.plan
        self._settled.add(site)
        self._collected.accepted[site] = receipt
        if header.evaluation is not None:
            self._collected.evaluations[site] = header.evaluation
        if known:
            return
        own = plan.model_copy(update={"nonce": receipt.nonce})
        note_kept(self._link.registry.audit, header, own)
        sent = self._link.clock.monotonic()
        asked = SentRequest(0, self._earlier + 1, sent, Expected(site, own, {}))
        answer = Answer("accepted", receipt=receipt, norm=header.norm, bytes=header.bytes)
        self._record(asked, answer)

    def _record(self, request: SentRequest, answer: Answer) -> Outcome:
        site = request.site
        told = contribution_of(self._link, request, answer, number=self._request.number)
        self._link.registry.record_contribution(told)
        if is_caught(told):
            self._collected.caught.add(site)
        logger.info(
            "contribution campaign=%s round=%d site=%s outcome=%s code=%s",
            *(told.campaign, told.round, site, told.outcome, told.code),
        )
        plan = request.expected.plan
        place = Place(told.campaign, told.round, site, plan.purpose, plan.nonce)
        seconds = self._link.clock.monotonic() - request.sent
        trace_exchange(place, seconds=seconds, outcome=told.outcome, code=told.code)
        if answer.outcome == "accepted" and answer.receipt is not None:
            self._collected.accepted[site] = answer.receipt
            self._collected.faults.pop(site, None)
        else:
            self._collected.faults[site] = answer.code or answer.outcome
        return answer.outcome
