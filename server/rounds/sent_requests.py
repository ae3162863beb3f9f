"""Requests on their way to a site, and the replies that wait: signed, audited, pushed, pulled."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from flwr.app import ArrayRecord, Message, MessageType

from common.plan import RoundPlan, sign_plan
from common.wire import PackedStep, content_of, request_to_records
from server.audit import note_plan
from server.registry.records import CampaignSettings
from server.rounds.control_variates import SentCorrection
from server.rounds.link import Link
from server.rounds.update_checks import Expected

logger = logging.getLogger(__name__)

PULL_AT_ONCE = 4
"""Replies that may be in memory at once; each may hold a whole update."""

PAUSE_AT_MOST = 60.0
"""Seconds; more than an exchange rests between two attempts."""


@dataclass(frozen=True)
class SentRequest:
    """A request that was sent and not answered yet; ``sent`` is in monotonic seconds.

    ``node`` is 0 where nothing was sent: the site is away, or its answer was kept here.
    ``stepped`` says that it carried a step, not the whole model; ``correction`` is what the site
    is to add to its gradients; ``again`` that the site may have been asked for the same before,
    and may send what it has kept.
    """

    node: int
    attempt: int
    sent: float
    expected: Expected
    stepped: bool = False
    correction: SentCorrection | None = None
    again: bool = False

    @property
    def site(self) -> str:
        """Who was asked."""
        return self.expected.site


def answer_seconds(settings: CampaignSettings) -> float:
    """Return how long an answer may be waited for, at most.

    A request stays open while others are asked again: through all attempts, each with its wait
    for sites to connect.
    """
    one = settings.round_deadline_seconds + settings.site_wait_seconds + PAUSE_AT_MOST
    return settings.attempts * one


def new_request(
    link: Link,
    plan: RoundPlan,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    site: str,
    node: int,
    attempt: int,
    stepped: bool = False,
    correction: SentCorrection | None = None,
    again: bool = False,
) -> SentRequest:
    """Return a request of its own nonce and times; nothing is sent yet."""
    issued = int(link.clock.now())
    changes = {
        "correction": correction.digest if correction is not None else None,
        "nonce": secrets.token_hex(32),
        "issued_at": issued,
        "expires_at": issued + link.plan_seconds,
    }
    added = correction.norm if correction is not None else 0.0
    expected = Expected(site, plan.model_copy(update=changes), shapes, added)
    sent = link.clock.monotonic()
    return SentRequest(node, attempt, sent, expected, stepped, correction, again)


def push_request(
    link: Link, request: SentRequest, model: ArrayRecord | PackedStep, *, number: int
) -> str | None:
    """Sign a request, write it into the audit log and send it.

    Parameters
    ----------
    link : Link
        The campaign's.
    request : SentRequest
        Of `new_request`.
    model : ArrayRecord or PackedStep
        The packed base model, or what leads to it.
    number : int
        The round's in the registry.

    Returns
    -------
    str or None
        The message's id; None where SuperLink does not know the node.
    """
    plan, site, correction = request.expected.plan, request.site, request.correction
    signed = sign_plan(plan, link.key)
    message = Message(
        request_to_records(signed, model, correction.packed if correction is not None else None),
        request.node,
        MessageType.TRAIN if plan.purpose == "train" else MessageType.EVALUATE,
        # The SuperLink drops an answer that comes after it. When a site may begin is the plan's.
        ttl=max(float(link.plan_seconds), answer_seconds(link.settings)),
        group_id=str(number),
    )
    note_plan(link.registry.audit, site, plan, signed)
    logger.info(
        "request campaign=%s round=%d site=%s step=%s bytes=%d",
        *(plan.campaign, number, site, request.stepped),
        content_of(message.content).bytes,
    )
    # One at a time: SuperLink limits a push's size, and says no more of an unknown node
    # than that an id is missing.
    return next((i for i in link.grid.push_messages([message]) if i), None)


def pull_replies(link: Link, identifiers: Iterable[str]) -> Iterator[Message]:
    """Yield what has come in answer to these messages, a few at a time."""
    waiting = list(identifiers)
    for first in range(0, len(waiting), PULL_AT_ONCE):
        yield from link.grid.pull_messages(waiting[first : first + PULL_AT_ONCE])
