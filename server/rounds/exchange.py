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
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from common.errors import UpdateRefused
from common.plan import sign_plan
from common.records import Receipt, SiteReply
from common.signing import SigningKey
from common.wire import Content, content_of, records_to_reply, request_to_records
from server.audit import note_kept, note_plan, note_refused, note_taken
from server.registry.records import CampaignSettings, Contribution, Outcome
from server.registry.registry import Registry
from server.rounds.clock import Backoff, Clock
from server.rounds.exchange_records import Collected, Request
from server.rounds.kept_answers import AnswerHeader
from server.rounds.site_directory import SiteDirectory
from server.rounds.site_pace import SitePace
from server.rounds.update_checks import Expected, check_reply

logger = logging.getLogger(__name__)

PULL_AT_ONCE = 4
"""Replies that may be in memory at once; each may hold a whole update."""

PAUSE_SECONDS = (1.0, 4.0, 16.0)
"""Between attempts; the last one again and again."""

FLOWER_ERRORS = {
    1: "site-app-not-loaded",
    2: "site-app-failed",
    3: "reply-lost",
    4: "reply-lost",
    5: "site-unreachable",
    8: "site-app-crashed",
}
"""Flower's `ErrorCode`, whose numbers are all that is taken from an error reply: never its text."""

STEP_REFUSALS = ("base-unknown", "plan-base-mismatch", "request-malformed")
"""Answers to a step that mean: send the whole model."""

Take = Callable[[SiteReply, Receipt, Expected, Content], float | None]
"""Checks and takes in a reply, so that it is not lost; returns its update's norm, or raises
UpdateRefused."""


@dataclass(frozen=True)
class Link:
    """What an exchange works with: Flower's grid, the plan key and its plans' life in seconds."""

    grid: Grid
    directory: SiteDirectory
    registry: Registry
    key: SigningKey
    clock: Clock
    settings: CampaignSettings
    plan_seconds: int


@dataclass(frozen=True)
class _Open:
    """A request that was sent and not answered yet; ``sent`` is in monotonic seconds.

    ``stepped`` says that it carried a step, not the whole model.
    """

    node: int
    attempt: int
    sent: float
    expected: Expected
    stepped: bool = False

    @property
    def site(self) -> str:
        """Who was asked."""
        return self.expected.site


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
        self._open: dict[str, _Open] = {}
        self._settled: set[str] = set()
        registry, campaign = link.registry, request.plan.campaign
        told = registry.contributions(campaign)
        plan, evaluations = request.plan, request.plan.recipe.federation.evaluations
        alike = plan.purpose == "train" and not (plan.evaluate and evaluations > 0)
        limit = link.settings.round_deadline_seconds
        self._pace = SitePace(told, maximum=limit, alike=alike)
        base = request.step.header.base_digest if request.step is not None else None
        self._holders = {c.site for c in told if c.receipt and c.receipt.base_digest == base}
        before = [c for c in told if c.round == request.number]
        self._earlier = max((c.attempt for c in before), default=0)
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
            if self._collected.met:
                break
            if number < attempts:
                pause = PAUSE_SECONDS[min(number, len(PAUSE_SECONDS)) - 1]
                self._link.clock.sleep(pause)
        for opened in self._open.values():
            self._record(opened, "late", code="deadline")
        return self._collected

    def _ask(self, attempt: int) -> None:
        busy = self._settled | {opened.expected.site for opened in self._open.values()}
        hopeful = len(self._collected.accepted) + len(self._open)
        connected = self._link.directory.wait(
            lambda found: hopeful + len(found.keys() - busy) >= self._request.quorum,
            everyone=False,
            seconds=self._link.settings.site_wait_seconds,
        )
        free = {site: node for site, node in connected.items() if site not in busy}
        for site in sorted(self._link.directory.expected() - connected.keys() - busy):
            self._record(self._opened(site, 0, attempt), "absent", code="not-connected")
        if self._request.plan.purpose == "train" and hopeful + len(free) < self._request.quorum:
            logger.warning("quorum-out-of-reach round=%d", self._request.number)
            return
        for site, node in free.items():
            self._send(site, node, attempt)

    def _opened(self, site: str, node: int, attempt: int) -> _Open:
        issued = int(self._link.clock.now())
        changes = {
            "nonce": secrets.token_hex(32),
            "issued_at": issued,
            "expires_at": issued + self._link.plan_seconds,
        }
        plan = self._request.plan.model_copy(update=changes)
        expected = Expected(site, plan, self._request.shapes)
        return _Open(node, attempt, self._link.clock.monotonic(), expected)

    def _send(self, site: str, node: int, attempt: int) -> None:
        step = self._request.step if site in self._holders else None
        opened = replace(self._opened(site, node, attempt), stepped=step is not None)
        signed = sign_plan(opened.expected.plan, self._link.key)
        train = opened.expected.plan.purpose == "train"
        message = Message(
            request_to_records(signed, step or self._request.tensors),
            node,
            MessageType.TRAIN if train else MessageType.EVALUATE,
            ttl=float(self._link.plan_seconds),
            group_id=str(self._request.number),
        )
        note_plan(self._link.registry.audit, site, opened.expected.plan, signed)
        logger.info(
            "request campaign=%s round=%d site=%s step=%s bytes=%d",
            *(opened.expected.plan.campaign, self._request.number, site, opened.stepped),
            content_of(message.content).bytes,
        )
        # One at a time: SuperLink limits a push's size, and says no more of an unknown node
        # than that an id is missing.
        identifiers = [i for i in self._link.grid.push_messages([message]) if i]
        if identifiers:
            self._open[identifiers[0]] = opened
        else:
            self._record(opened, "failed", code="not-delivered")

    def _receive(self, number: int) -> None:
        clock, begin = self._link.clock, self._link.clock.monotonic()
        backoff = Backoff()
        while self._open:
            for message in self._pull():
                opened = self._open.pop(message.metadata.reply_to_message_id, None)
                if opened is None:
                    logger.warning("reply-unasked round=%d", self._request.number)
                    continue
                backoff.reset()
                if self._settle(opened, message) != "failed":
                    self._settled.add(opened.expected.site)
            allowed = (self._pace.allowed(o.site, number) for o in self._open.values())
            remaining = begin + max(allowed, default=0.0) - clock.monotonic()
            if not self._open or remaining <= 0:
                return
            clock.sleep(backoff.interval(remaining))

    def _pull(self) -> Iterator[Message]:
        identifiers = list(self._open)
        for first in range(0, len(identifiers), PULL_AT_ONCE):
            yield from self._link.grid.pull_messages(identifiers[first : first + PULL_AT_ONCE])

    def _settle(self, opened: _Open, message: Message) -> Outcome:
        log, site, plan = self._link.registry.audit, opened.expected.site, opened.expected.plan
        if message.has_error():
            code = FLOWER_ERRORS.get(message.error.code, "site-failed")
            note_refused(log, site, plan, code)
            return self._record(opened, "failed", code=code)
        try:
            if message.metadata.src_node_id != opened.node:
                raise UpdateRefused("Another node answers.", code="reply-node")
            reply = records_to_reply(
                message.content,
                shapes=opened.expected.shapes,
                compression=plan.recipe.federation.compression,
            )
            if reply.refusal is not None:
                note_refused(log, site, plan, reply.refusal.code, message.content)
                if opened.stepped and reply.refusal.code in STEP_REFUSALS:
                    self._holders.discard(site)
                    self._send(site, opened.node, opened.attempt)  # the same round, the whole model
                    return "failed"
                return self._refused(opened, reply, reply.refusal.code)
            receipt = check_reply(reply, opened.expected)
            came = content_of(message.content)
            norm = self._take(reply, receipt, opened.expected, came)
        except UpdateRefused as error:
            note_refused(log, site, plan, error.code, message.content)
            return self._record(opened, "rejected", code=error.code)
        note_taken(log, site, plan, reply, message.content)
        return self._accepted(opened, reply, receipt, norm, came.bytes)

    def _accepted(
        self, opened: _Open, reply: SiteReply, receipt: Receipt, norm: float | None, size: int
    ) -> Outcome:
        site = opened.expected.site
        self._collected.accepted[site] = receipt
        if reply.evaluation is not None:
            self._collected.evaluations[site] = reply.evaluation
        return self._record(opened, "accepted", receipt=receipt, norm=norm, size=size)

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
        opened = _Open(0, self._earlier + 1, self._link.clock.monotonic(), Expected(site, own, {}))
        self._record(opened, "accepted", receipt=receipt, norm=header.norm, size=header.bytes)

    def _refused(self, opened: _Open, reply: SiteReply, code: str) -> Outcome:
        # A site that may not train any more can still say how the model does. One that cannot
        # read its own settings does not know its name, but still tells why.
        evaluation, site = reply.evaluation, opened.expected.site
        same = evaluation is not None and evaluation.classes == opened.expected.plan.recipe.classes
        if evaluation is not None and same and reply.site == site:
            self._collected.evaluations[site] = evaluation
        return self._record(opened, "refused", code=code)

    def _record(
        self,
        opened: _Open,
        outcome: Outcome,
        *,
        code: str | None = None,
        receipt: Receipt | None = None,
        norm: float | None = None,
        size: int = 0,
    ) -> Outcome:
        site = opened.expected.site
        contribution = Contribution(
            campaign=self._request.plan.campaign,
            round=self._request.number,
            site=site,
            attempt=opened.attempt,
            outcome=outcome,
            code=code,
            receipt=receipt,
            update_norm=norm,
            bytes=size,
            seconds=self._link.clock.monotonic() - opened.sent,
        )
        self._link.registry.record_contribution(contribution)
        logger.info(
            "contribution campaign=%s round=%d site=%s outcome=%s code=%s",
            *(contribution.campaign, contribution.round, site, outcome, code),
        )
        if outcome == "accepted":
            self._collected.faults.pop(site, None)
        else:
            self._collected.faults[site] = code or outcome
        return outcome
