"""Buffered rounds' requests and replies: each site works at its own pace, and nobody waits.

A site that answered is asked again at once, with the newest model. A request outlives the step in
which it was sent; each has a deadline after the site's own pace. What holds of a synchronous
round's attempts holds of a step's: a site that failed is asked again a few times, for the same
turn; one that refused, or whose update was bad, is left out of the step by name.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from flwr.app import Message

from server.outcome_reasons import TRAINING_LOST
from server.rounds.buffered_requests import BufferedRequests, OpenTurn
from server.rounds.buffered_step import BufferedStep, record
from server.rounds.clock import Backoff
from server.rounds.exchange import NOT_CONNECTED
from server.rounds.link import Link
from server.rounds.replies import Answer, read_answer
from server.rounds.sent_requests import pull_replies

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""Between two looks at who is connected."""

SPENT = (TRAINING_LOST, "plan-out-of-order")
"""Refusals that say: this turn was trained already, and its answer is lost. The next one is due."""


class BufferedExchange:
    """Asking and waiting, step after step.

    Parameters
    ----------
    link : Link
        The campaign's.
    requests : BufferedRequests
        The open ones, which outlive a step.
    """

    def __init__(self, link: Link, requests: BufferedRequests) -> None:
        self._link = link
        self._requests = requests
        self._connected: dict[str, int] = {}
        self._looked = float("-inf")

    def fill(self, step: BufferedStep) -> bool:
        """Ask and wait until a step is complete; tell whether it is.

        It is not where nobody is left who could make it so, for so long as sites may take to
        connect: ``step.standing.faults`` says why.
        """
        backoff, clock = Backoff(), self._link.clock
        alone_since = clock.monotonic()
        self._looked = float("-inf")  # whoever is absent is named once a step
        while True:
            if self._receive(step):
                backoff.reset()
            self._expire(step)
            self._look(step)
            if self._complete(step):
                return True
            self._ask(step)
            now = clock.monotonic()
            if self._requests.open or any(step.standing.rests(s, now=now) for s in self._connected):
                alone_since = now
            elif now - alone_since >= self._link.settings.site_wait_seconds:
                return False
            clock.sleep(backoff.interval(LOOK_SECONDS))

    def close(self, step: BufferedStep) -> None:
        """Record whoever is still at work when the campaign's rounds are over."""
        for opened in self._requests.open.values():
            record(self._link, step, opened.request, Answer("late", "campaign-over"))
        self._requests.open.clear()

    def _complete(self, step: BufferedStep) -> bool:
        if not step.rule.complete(step.number, step.buffer.sites, step.earlier):
            return False
        # Privacy is spent on what is being trained, or was before an interruption: no step makes
        # it too old, or useless. Who was late once is not waited for again.
        there = {*self._requests.busy, *self._connected}
        due = [self._due(step, s) for s in there if not step.standing.failures(s)]
        return not any(base and (step.drains or step.ends_use_of(base)) for base in due)

    def _due(self, step: BufferedStep, site: str) -> str | None:
        """Return the base of the update that a site owes, if it can still be used."""
        turn = self._requests.turns.of(site)
        if turn is None or turn.state != "asked" or step.standing.is_out(site):
            return None
        return turn.base_digest if step.usable(turn.base_digest) else None

    def _receive(self, step: BufferedStep) -> bool:
        came = False
        for message in pull_replies(self._link, self._requests.open):
            opened = self._requests.open.pop(message.metadata.reply_to_message_id, None)
            if opened is None:
                logger.warning("reply-unasked round=%d", step.number)
                continue
            came = True
            self._settle(step, opened, message)
        return came

    def _settle(self, step: BufferedStep, opened: OpenTurn, message: Message) -> None:
        site, turn = opened.site, opened.turn
        answer = read_answer(self._link, opened.request, message, step.buffer.take)
        if answer.wants_model:
            self._requests.send(step, site, opened.request.node, turn, whole=True)
            return
        if answer.evaluation is not None and turn.base_digest == step.base_digest:
            step.scores[site] = answer.evaluation
        record(self._link, step, opened.request, answer)
        self._judge(step, site, answer)

    def _judge(self, step: BufferedStep, site: str, answer: Answer) -> None:
        """Note what an answer makes of the site's turn, and of the site in this step."""
        turns, standing = self._requests.turns, step.standing
        code, now = answer.code or answer.outcome, self._link.clock.monotonic()
        if answer.outcome == "accepted":
            turns.settle(site, "answered")
            standing.succeeded(site)
        elif answer.outcome == "failed":
            standing.failed(site, code, now=now)
        elif answer.outcome == "refused" and code not in SPENT:
            turns.settle(site, "refused")
            standing.leave_out(site, code)
        else:
            turns.settle(site, "answered")
            if code in SPENT or code == "update-stale":
                standing.failed(site, code, now=now)
            else:
                standing.leave_out(site, code)

    def _expire(self, step: BufferedStep) -> None:
        now = self._link.clock.monotonic()
        for identifier, opened in list(self._requests.open.items()):
            attempt = step.standing.failures(opened.site) + 1
            if now - opened.request.sent > step.pace.allowed(opened.site, attempt):
                del self._requests.open[identifier]
                record(self._link, step, opened.request, Answer("late", "deadline"))
                step.standing.failed(opened.site, "deadline", now=now)

    def _ask(self, step: BufferedStep) -> None:
        """Ask whoever is free, unless a quorum is out of reach: privacy spent for nothing."""
        now, standing, busy = self._link.clock.monotonic(), step.standing, self._requests.busy
        free = {
            site: node
            for site, node in self._connected.items()
            if site not in busy and not standing.is_out(site)
        }
        if self._is_hopeless(step, free):
            return
        for site in [s for s in free if not self._requests.has_turn(step, s)]:
            node = free.pop(site)
            if self._wanted(step, site):
                self._requests.ask(step, site, node)  # which leaves it out, by name
        for site, node in free.items():
            if self._is_hopeless(step, free):
                return
            if not standing.rests(site, now=now) and self._wanted(step, site):
                self._requests.ask(step, site, node)

    def _is_hopeless(self, step: BufferedStep, free: Iterable[str]) -> bool:
        left = (site for site in free if not step.standing.is_out(site))
        hopeful = {*step.buffer.sites, *self._requests.busy, *left}
        return step.rule.lacking(step.number, hopeful, step.earlier) > 0

    def _wanted(self, step: BufferedStep, site: str) -> bool:
        """Tell whether another update of a site would be used; one that it owes costs nothing."""
        if self._due(step, site):
            return True
        have, busy, size = step.buffer.sites, self._requests.busy, step.rule.size
        if len(have) >= size or (step.drains and len(have) + len(busy) >= size):
            wanting = step.rule.lacking(step.number, {*have, *busy}, step.earlier) > 0
            return site not in have and wanting
        return True

    def _look(self, step: BufferedStep) -> None:
        now = self._link.clock.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        directory = self._link.directory
        self._connected, self._looked = directory.connected(), now
        away = directory.expected() - self._connected.keys() - set(self._requests.busy)
        for site in sorted(away - step.standing.faults.keys()):
            self._requests.note(step, site, Answer("absent", NOT_CONNECTED))
            step.standing.faults[site] = NOT_CONNECTED
