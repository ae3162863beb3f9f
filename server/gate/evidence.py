"""What the release gate judges by."""

from __future__ import annotations

from dataclasses import dataclass

from common.recipe import Recipe, ReleaseGateSpec
from common.update import Tensors
from server.evaluation import BySite
from server.protocol import GateProtocol
from server.registry.records import Contribution


@dataclass(frozen=True)
class Evidence:
    """What the gate judges by.

    Attributes
    ----------
    recipe : Recipe
        Whose `ReleaseGateSpec` sets the limits, where there is no protocol.
    epsilon : float or None
        What the campaign asked for; None without privacy.
    tensors : mapping of str to ndarray
        The candidate's weights.
    candidate : mapping of str to SiteEvaluation
        Its evaluation by site.
    champion : mapping of str to SiteEvaluation or None
        The current release's, in the same campaign; None when there is no release, empty where
        nobody scored it, which fails.
    accepted : tuple of Contribution
        All updates that were taken in.
    base : mapping of str to ndarray, or None
        The weights that the campaign started from.
    protocol : GateProtocol or None
        As the campaign's settings hold it; None in campaigns of older versions.
    locked : str or None
        The protocol's digest as it was written into the audit log when the campaign was created.
    """

    recipe: Recipe
    epsilon: float | None
    tensors: Tensors
    candidate: BySite
    champion: BySite | None
    accepted: tuple[Contribution, ...]
    base: Tensors | None = None
    protocol: GateProtocol | None = None
    locked: str | None = None

    @property
    def limits(self) -> ReleaseGateSpec:
        """What the candidate is held to."""
        return self.recipe.release if self.protocol is None else self.protocol.limits
