"""Before the first round: asking every site what the campaign would cost it.

A site answers from its policy, its privacy ledger and the number of its holdout cases; nothing is
trained or spent. Where too many refuse, or cannot afford it, for a quorum ever to be met, the
campaign ends here instead of in the middle, with privacy spent for nothing. So it does where too
many could not score a candidate for the release gate ever to pass one. A connected site that does
not answer is not counted out: it may for the rounds.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flwr.app import Message, MessageType

from common.audit import AuditLog
from common.errors import RoundFailed, UpdateRefused
from common.plan import PrivacyRequest, RoundPlan, sign_plan
from common.records import Forecast
from common.update import tensors_digest
from common.wire import records_to_reply, request_to_records
from common.wording import listed
from server.audit import note_plan, note_refused, note_taken
from server.outcome_reasons import OUTCOME_REASONS
from server.registry.records import Campaign, SiteForecast
from server.rounds.clock import Backoff
from server.rounds.exchange import NOT_CONNECTED
from server.rounds.link import Link
from server.rounds.replies import FLOWER_ERRORS

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 60.0
AWAITED = "awaited"
"""The code of a registered site that is not connected yet, while the preflight waits for it."""
ASKED = "asked"
"""The code of a site that was asked, and has not answered yet."""
_AWAY = (NOT_CONNECTED, AWAITED)


@dataclass(frozen=True)
class _Asked:
    site: str
    node: int
    plan: RoundPlan


def preflight(link: Link, campaign: Campaign) -> tuple[SiteForecast, ...]:
    """Ask all sites that take part, and record what they say, and meanwhile who is waited for.

    Where the campaign only asks, whatever they say is what it was started for.

    Raises
    ------
    RoundFailed
        With code ``preflight``, if a quorum, or the sites that the gate wants to have scored the
        candidate, are out of reach; the text names each site's reason.
    StoreError
        If the registry failed.
    """
    connected = link.directory.wait(
        lambda found: len(found) >= campaign.settings.quorum,
        everyone=True,
        seconds=campaign.settings.site_wait_seconds,
        waiting=lambda missing: _record(link, campaign, dict.fromkeys(missing, AWAITED)),
    )
    absent = link.directory.expected() - connected.keys()
    _record(link, campaign, dict.fromkeys(absent, NOT_CONNECTED) | dict.fromkeys(connected, ASKED))
    found = {site: SiteForecast(site, code=NOT_CONNECTED) for site in absent}
    found |= {f.site: f for f in _answers(link, _ask(link, campaign, connected))}
    forecasts = tuple(found[site] for site in sorted(found))
    link.registry.record_forecasts(campaign.id, forecasts)
    for forecast in forecasts:
        logger.info(
            "preflight campaign=%s site=%s affordable=%s cannot_score=%s code=%s",
            *(campaign.id, forecast.site, forecast.affordable, forecast.cannot_score),
            forecast.code,
        )
    if campaign.settings.only_preflight:
        return forecasts
    if hopeful_sites(forecasts) < campaign.settings.quorum:
        raise _out_of_reach(campaign, [f for f in forecasts if _is_lost(f)])
    if not can_be_scored(campaign, forecasts):
        raise _unscored(campaign, forecasts)
    return forecasts


def is_possible(campaign: Campaign, forecasts: Sequence[SiteForecast]) -> bool:
    """Tell whether a quorum can be met and a candidate scored, by what the sites said.

    Who was silent still may answer.
    """
    quorum = campaign.settings.quorum
    return hopeful_sites(forecasts) >= quorum and can_be_scored(campaign, forecasts)


def can_be_scored(campaign: Campaign, forecasts: Sequence[SiteForecast]) -> bool:
    """Tell whether as many sites as the release gate asks for could score the candidate.

    A site that cannot afford to train may score all the same, and one that is away may be there
    by the end. Where none says that it cannot score, too few sites are the gate's to judge; so
    they are where the candidate is nobody's to serve (``may_go_unscored``).
    """
    if campaign.settings.may_go_unscored or not any(told.cannot_score for told in forecasts):
        return True
    able = sum(not told.cannot_score for told in forecasts)
    return able >= campaign.limits.minimum_sites


def sites_that_cannot_score(forecasts: Sequence[SiteForecast]) -> tuple[str, ...]:
    """Return the names of the sites that said so."""
    return tuple(told.site for told in forecasts if told.cannot_score)


def hopeful_sites(forecasts: Sequence[SiteForecast]) -> int:
    """Return how many sites are there and did not say no."""
    return sum(not _is_lost(told) for told in forecasts)


def _is_lost(told: SiteForecast) -> bool:
    return told.refuses or told.code in _AWAY


def _record(link: Link, campaign: Campaign, codes: Mapping[str, str]) -> None:
    """Let whoever looks see who is waited for; what the sites say takes the place of it."""
    told = tuple(SiteForecast(site, code=code) for site, code in sorted(codes.items()))
    link.registry.record_forecasts(campaign.id, told)


def _out_of_reach(campaign: Campaign, lost: list[SiteForecast]) -> RoundFailed:
    known = [(f.site, f.code or "refused") for f in lost]
    reasons = "; ".join(f"{site} ({code}) {OUTCOME_REASONS.get(code, '')}" for site, code in known)
    return RoundFailed(
        f"The quorum of {campaign.settings.quorum} sites is out of reach: "
        f"{reasons.strip() or 'no other site is registered'}".rstrip(".")
        + ".",
        meaning="Nothing was trained, and no privacy was spent.",
        action="Ask for less epsilon, other rounds or a smaller quorum (`--quorum`), or see to "
        "the sites that are named.",
        code="preflight",
    )


def _unscored(campaign: Campaign, forecasts: Sequence[SiteForecast]) -> RoundFailed:
    mute = listed(sites_that_cannot_score(forecasts))
    return RoundFailed(
        f"The candidate could not be released: the gate asks for {campaign.limits.minimum_sites} "
        f"sites to have scored it, and {mute} could not, for too few holdout cases or by policy.",
        meaning="Nothing was trained, and no privacy was spent.",
        action="The sites that are named need more holdout cases (minimum_cell of their "
        "policy.toml of one class), or a decision of their hospital: a smaller minimum_cell, or "
        "release_evaluation = true. Or let the gate ask for fewer sites (`minimum_sites` in "
        "[limits] of a protocol file, given with --protocol).",
        code="preflight",
    )


def _ask(link: Link, campaign: Campaign, connected: dict[str, int]) -> dict[str, _Asked]:
    asked: dict[str, _Asked] = {}
    for site, node in connected.items():
        plan = _plan(link, campaign)
        signed = sign_plan(plan, link.key)
        message = Message(
            request_to_records(signed, {}),
            node,
            MessageType.EVALUATE,
            ttl=float(link.plan_seconds),
            group_id="preflight",
        )
        note_plan(link.registry.audit, site, plan, signed)
        # An empty id: the SuperLink does not know the node any more.
        for identifier in link.grid.push_messages([message]):
            asked[identifier] = _Asked(site, node, plan)
    return asked


def _plan(link: Link, campaign: Campaign) -> RoundPlan:
    settings, privacy = campaign.settings, campaign.recipe.privacy
    issued = int(link.clock.now())
    return RoundPlan(
        purpose="preflight",
        campaign=campaign.id,
        round=1,
        rounds=settings.site_rounds,
        nonce=secrets.token_hex(32),
        base_digest=tensors_digest({}),
        recipe=campaign.recipe,
        training=campaign.training,
        trainable=settings.phase(1).scope,
        privacy=PrivacyRequest(
            epsilon=settings.epsilon,
            max_grad_norm=privacy.max_grad_norm,
            augmentation_multiplicity=privacy.augmentation_multiplicity,
        ),
        evaluate=False,
        issued_at=issued,
        expires_at=issued + link.plan_seconds,
    )


def _answers(link: Link, asked: dict[str, _Asked]) -> list[SiteForecast]:
    waiting = {i: a for i, a in asked.items() if i}
    found = [SiteForecast(a.site, code="not-delivered") for i, a in asked.items() if not i]
    deadline = link.clock.monotonic() + ANSWER_SECONDS
    backoff = Backoff()
    while waiting and link.clock.monotonic() < deadline:
        for message in link.grid.pull_messages(list(waiting)):
            request = waiting.pop(message.metadata.reply_to_message_id, None)
            if request is not None:
                found.append(_read(link.registry.audit, request, message))
                backoff.reset()
        if waiting:
            link.clock.sleep(backoff.interval(deadline - link.clock.monotonic()))
    return found + [SiteForecast(a.site, code="deadline") for a in waiting.values()]


def _read(log: AuditLog, request: _Asked, message: Message) -> SiteForecast:
    if message.has_error():
        code = FLOWER_ERRORS.get(message.error.code, "site-failed")
        note_refused(log, request.site, request.plan, code)
        return SiteForecast(request.site, code=code)
    try:
        reply = records_to_reply(message.content)
        if message.metadata.src_node_id != request.node:
            raise UpdateRefused("Another node answers.", code="reply-node")
        if reply.refusal is not None:
            note_refused(log, request.site, request.plan, reply.refusal.code, message.content)
            return SiteForecast(request.site, code=reply.refusal.code, refuses=True)
        told = _forecast(request, reply.forecast)
        note_taken(log, request.site, request.plan, reply, message.content)
        return told
    except UpdateRefused as error:
        note_refused(log, request.site, request.plan, error.code, message.content)
        return SiteForecast(request.site, code=error.code)


def _forecast(request: _Asked, forecast: Forecast | None) -> SiteForecast:
    plan = request.plan
    if forecast is None or (forecast.site, forecast.campaign, forecast.nonce) != (
        request.site,
        plan.campaign,
        plan.nonce,
    ):
        raise UpdateRefused("A forecast is for another request.", code="reply-binding")
    return SiteForecast(
        request.site, forecast.code, refuses=not forecast.affordable, forecast=forecast
    )
