"""How old the model was that an update was trained on, and what that makes of the update."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from server.registry.records import CampaignSettings, Contribution, Round

TOO_OLD = 10**9
"""Steps; more than any limit."""


def staleness_weight(staleness: int) -> float:
    """Return what an update is multiplied with: 1 / sqrt(1 + staleness).

    The polynomial weight of FedBuff (Nguyen et al. 2022, arXiv:2106.06639, section 5 and
    appendix), after Xie et al. 2019 (arXiv:1903.03934): an old update moves the model less.

    Parameters
    ----------
    staleness : int
        Steps of the model between the base and now, 0 or more.
    """
    return 1 / math.sqrt(1 + staleness)


def model_versions(rounds: Iterable[Round]) -> dict[str, int]:
    """Return by a base model's digest how many steps had led to it.

    Where a step moved nothing, two versions have one digest; the newer one counts.
    """
    return {r.base_digest: r.number - 1 for r in rounds if r.purpose == "train"}


def base_age(
    digest: str, *, step: int, versions: Mapping[str, int], settings: CampaignSettings
) -> int:
    """Return how many steps old a base model is in a step, for an update that was trained on it.

    Too old for any limit where the model is not known, and where other tensors moved from it than
    move in this step: the update does not fit.

    Parameters
    ----------
    digest : str
        The base model's.
    step : int
        The step's number, from 1.
    versions : mapping of str to int
        Of `model_versions`.
    settings : CampaignSettings
        Says what moves in which step.
    """
    known = versions.get(digest)
    if known is None or settings.phase(known + 1) != settings.phase(step):
        return TOO_OLD
    return step - 1 - known


def staleness_of(contribution: Contribution, versions: Mapping[str, int]) -> int | None:
    """Return how many steps old the base of an accepted update was; None where it is not known.

    Parameters
    ----------
    contribution : Contribution
        Of a campaign with buffered rounds; in synchronous ones it is always 0.
    versions : mapping of str to int
        Of `model_versions`.
    """
    receipt = contribution.receipt
    if receipt is None or receipt.base_digest not in versions:
        return None
    return contribution.round - 1 - versions[receipt.base_digest]
