"""From one prediction back to the campaigns, rounds and receipts that its model came from."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from common.audit_entries import Entry, PredictionMade, Released, ReplyTaken
from common.errors import NotFound

if TYPE_CHECKING:
    from server.registry.records import Contribution
    from server.registry.registry import Registry


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, protected_namespaces=())


class TracedPrediction(_Document):
    """One answer, as the site's log has it; ``installed_at`` is when its model began to answer.

    ``by`` is the account or the key that asked, None of lines from before it was kept.
    """

    site: str
    request_id: str
    answered_at: str
    version: int
    model_digest: str
    installed_at: str | None
    by: str | None = None


class TracedReceipt(_Document):
    """A site's accepted update in a round.

    ``site_confirms`` is whether the site's own log says that this update left; None where that
    log was not given.
    """

    site: str
    update_digest: str | None
    privacy_unit: str
    epsilon_campaign: float | None
    epsilon_life: float | None
    site_confirms: bool | None


class TracedRound(_Document):
    """A training round that went into the model."""

    number: int
    base_digest: str
    aggregate_digest: str | None
    receipts: tuple[TracedReceipt, ...]


class TracedCampaign(_Document):
    """A release's campaign; a campaign that started from a release is followed by that one's."""

    version: int
    campaign: str
    candidate: str
    model_digest: str
    base_release: int | None
    rounds: tuple[TracedRound, ...]


class Trace(_Document):
    """The whole way; without a coordinator's folder it ends at the site."""

    prediction: TracedPrediction
    campaigns: tuple[TracedCampaign, ...]
    faults: tuple[str, ...]


def trace(
    prediction: TracedPrediction,
    registry: Registry | None,
    coordinator: tuple[Entry, ...],
    left_at: Mapping[str, Set[str]],
) -> Trace:
    """Follow a prediction.

    Parameters
    ----------
    prediction : TracedPrediction
        Where it begins.
    registry : Registry or None
        The coordinator's.
    coordinator : tuple of Entry
        Its audit log.
    left_at : mapping of str to set of str
        Digests of the updates that left, by site, for those whose logs were given.
    """
    if registry is None:
        return Trace(prediction=prediction, campaigns=(), faults=())
    faults: list[str] = []
    campaigns: list[TracedCampaign] = []
    released = {e.version: e for e in coordinator if isinstance(e, Released)}
    taken = {e.update_digest for e in coordinator if isinstance(e, ReplyTaken)}
    version: int | None = prediction.version
    while version is not None:
        try:
            manifest = registry.release(version).manifest
        except NotFound:
            faults.append(f"The registry has no release {version}.")
            break
        written = released.get(version)
        if written is None or written.model_digest != manifest.model_digest:
            faults.append(f"The coordinator's log does not have release {version} like this.")
        found = _campaign(registry, version, left_at)
        faults += _receipt_faults(found, taken)
        campaigns.append(found)
        earlier = found.base_release
        version = earlier if earlier is not None and earlier < version else None
    if campaigns and campaigns[0].model_digest != prediction.model_digest:
        faults.append(f"Release {prediction.version} is another model than the one that answered.")
    return Trace(prediction=prediction, campaigns=tuple(campaigns), faults=tuple(faults))


def _campaign(registry: Registry, version: int, left_at: Mapping[str, Set[str]]) -> TracedCampaign:
    manifest = registry.release(version).manifest
    lineage = manifest.lineage
    accepted = [c for c in registry.contributions(lineage.campaign) if c.outcome == "accepted"]
    return TracedCampaign(
        version=version,
        campaign=lineage.campaign,
        candidate=lineage.candidate,
        model_digest=manifest.model_digest,
        base_release=lineage.base_release,
        rounds=tuple(
            TracedRound(
                number=found.number,
                base_digest=found.base_digest,
                aggregate_digest=found.aggregate_digest,
                receipts=tuple(_receipt(c, left_at) for c in accepted if c.round == found.number),
            )
            for found in registry.rounds(lineage.campaign)
            if found.purpose == "train"
        ),
    )


def _receipt(contribution: Contribution, left_at: Mapping[str, Set[str]]) -> TracedReceipt:
    receipt, own = contribution.receipt, left_at.get(contribution.site)
    digest = receipt.update_digest if receipt is not None else None
    return TracedReceipt(
        site=contribution.site,
        update_digest=digest,
        privacy_unit=receipt.privacy_unit if receipt is not None else "none",
        epsilon_campaign=receipt.epsilon_campaign if receipt is not None else None,
        epsilon_life=receipt.epsilon_life if receipt is not None else None,
        site_confirms=None if own is None else digest in own,
    )


def _receipt_faults(campaign: TracedCampaign, taken: Set[str | None]) -> list[str]:
    faults = []
    for round_ in campaign.rounds:
        for receipt in round_.receipts:
            where = f"campaign {campaign.campaign}, round {round_.number}, site {receipt.site}"
            if receipt.update_digest not in taken:
                faults.append(f"The coordinator's log has no such update ({where}).")
            if receipt.site_confirms is False:
                faults.append(f"The site's log does not say that this update left ({where}).")
    return faults


def traced(
    site: str, entry: PredictionMade, answered_at: str, installed_at: str | None
) -> TracedPrediction:
    """Return the beginning of a trace."""
    return TracedPrediction(
        site=site,
        request_id=entry.request_id,
        answered_at=answered_at,
        version=entry.version,
        model_digest=entry.model_digest,
        installed_at=installed_at,
        by=entry.by,
    )
