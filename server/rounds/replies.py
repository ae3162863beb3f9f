"""What a reply says: accepted, refused by the site, rejected by the checks, or no use at all.

Everything that comes is written into the audit log here, whatever is to become of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from flwr.app import Message

from common.errors import UpdateRefused
from common.evaluation import SiteEvaluation
from common.records import Receipt, SiteReply
from common.wire import Content, content_of, records_to_reply
from server.audit import note_refused, note_taken
from server.outcome_reasons import PLAN_LATE, TRAINING_LOST
from server.registry.records import Contribution, Outcome
from server.rounds.evaluation_checks import check_evaluation
from server.rounds.link import Link
from server.rounds.sent_requests import SentRequest
from server.rounds.update_checks import Expected, check_reply

logger = logging.getLogger(__name__)

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

NO_LIE = frozenset({"reply-node", "site-revoked", "update-stale"})
"""Codes of rejected answers that say nothing of the site's update itself."""

Take = Callable[[SiteReply, Receipt, Expected, Content], float | None]
"""Checks and takes in a reply, so that it is not lost; returns its update's norm, or raises
UpdateRefused."""


@dataclass(frozen=True)
class Answer:
    """What came of a request; ``bytes`` are of the tensors that came back.

    ``wants_model`` says that the site could not use a step: the same round, the whole model.
    """

    outcome: Outcome
    code: str | None = None
    receipt: Receipt | None = None
    evaluation: SiteEvaluation | None = None
    norm: float | None = None
    bytes: int = 0
    wants_model: bool = False


def read_answer(link: Link, request: SentRequest, message: Message, take: Take) -> Answer:
    """Check a reply, and have it taken in where it passes.

    Parameters
    ----------
    link : Link
        The campaign's.
    request : SentRequest
        That it answers.
    message : Message
        As it came.
    take : callable
        What becomes of a reply that answers its request.
    """
    log, site, plan = link.registry.audit, request.site, request.expected.plan
    if message.has_error():
        code = FLOWER_ERRORS.get(message.error.code, "site-failed")
        note_refused(log, site, plan, code)
        return Answer("failed", code)
    try:
        if message.metadata.src_node_id != request.node:
            raise UpdateRefused("Another node answers.", code="reply-node")
        if link.directory.is_revoked(site):  # a SuperLink that did not run knows its node still
            raise UpdateRefused("The site was revoked.", code="site-revoked")
        reply = records_to_reply(
            message.content,
            shapes=request.expected.shapes,
            compression=plan.recipe.federation.compression,
        )
        if reply.refusal is not None:
            note_refused(log, site, plan, reply.refusal.code, message.content)
            told = _told(link, request, reply, message)
            return _refusal(link, request, reply.refusal.code, told)
        receipt = check_reply(reply, request.expected)
        came = content_of(message.content)
        norm = take(reply, receipt, request.expected, came)
    except UpdateRefused as error:
        note_refused(log, site, plan, error.code, message.content)
        return Answer("rejected", error.code)
    note_taken(log, site, plan, reply, message.content)
    return Answer("accepted", None, receipt, reply.evaluation, norm, came.bytes)


def is_caught(told: Contribution) -> bool:
    """Tell whether a site's answer to a training round was refused for what was in it.

    Wherever it failed, be it that it could not even be read: aggregation counts the site among
    the malicious that it bears.
    """
    return told.outcome == "rejected" and told.code not in NO_LIE


def contribution_of(
    link: Link, request: SentRequest, answer: Answer, *, number: int
) -> Contribution:
    """Return the registry's record of an answer, as it stands now, in round ``number``.

    Its seconds are 0, which say nothing of the site's pace, where nothing was sent, or the site
    sends again what it had trained before (its receipt's seconds are 0 then).
    """
    receipt = answer.receipt
    repeated = request.again and receipt is not None and receipt.seconds == 0
    unmeasured = request.node == 0 or repeated
    return Contribution(
        campaign=request.expected.plan.campaign,
        round=number,
        site=request.site,
        attempt=request.attempt,
        outcome=answer.outcome,
        code=answer.code,
        receipt=receipt,
        update_norm=answer.norm,
        bytes=answer.bytes,
        seconds=0.0 if unmeasured else link.clock.monotonic() - request.sent,
    )


def _told(
    link: Link, request: SentRequest, reply: SiteReply, message: Message
) -> SiteEvaluation | None:
    """Return the holdout counts of a refusal, unless a check of them fails.

    A site that may not train any more can still say how the model does. One that cannot read
    its own settings does not know its name, but still tells why.
    """
    if reply.evaluation is None or reply.site != request.site:
        return None
    plan = request.expected.plan
    try:
        check_evaluation(reply.evaluation, plan.recipe)
    except UpdateRefused as error:
        note_refused(link.registry.audit, request.site, plan, error.code, message.content)
        logger.warning(
            "evaluation-dropped campaign=%s round=%d site=%s code=%s",
            *(plan.campaign, plan.round, request.site, error.code),
        )
        return None
    return reply.evaluation


def _refusal(link: Link, request: SentRequest, code: str, told: SiteEvaluation | None) -> Answer:
    if request.stepped and code in STEP_REFUSALS:
        return Answer("failed", code, wants_model=True)
    # The site was busy or away for the plan's whole life, and would take a new one. Where the
    # plan is good by our clock, the site's is wrong, and no new plan would help.
    if code == "plan-expired" and link.clock.now() >= request.expected.plan.expires_at:
        return Answer("failed", PLAN_LATE)
    # Each request has a nonce of its own, so this is about the round: its training was reserved,
    # and there is no reply to repeat.
    if code == "plan-replayed" and request.expected.plan.purpose == "train":
        code = TRAINING_LOST
    return Answer("refused", code, evaluation=told)
