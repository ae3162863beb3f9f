"""What changed with a model version, in words, out of the release's own manifest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from common.recipe import Recipe
from common.release import GateCheck, ReleaseManifest


@dataclass(frozen=True)
class Figure:
    """A figure of the release before this one and of this one, on the same held-out patients."""

    name: str
    before: float | None
    after: float | None

    @property
    def change(self) -> float | None:
        """After minus before; None where either is missing."""
        if self.before is None or self.after is None:
            return None
        return self.after - self.before


@dataclass(frozen=True)
class ReleaseNotes:
    """One model version, for a clinician.

    ``story`` says in one sentence where it comes from.
    """

    version: int
    story: str
    campaign: str
    created_at: datetime
    sites: tuple[str, ...]
    threshold: float
    figures: tuple[Figure, ...]
    checks: tuple[GateCheck, ...]
    cases: int
    digest: str

    @property
    def failed(self) -> int:
        """How many checks of the release gate did not pass."""
        return sum(not check.passed for check in self.checks)


def release_notes(manifest: ReleaseManifest, recipe: Recipe) -> ReleaseNotes:
    """Write a release's notes, its classes named as ``recipe`` displays them."""
    metrics = manifest.metrics
    candidate, champion = metrics.candidate, metrics.champion
    pairs = [
        ("Macro AUROC", candidate.macro_auroc, champion.macro_auroc if champion else None),
        ("Accuracy", candidate.accuracy, champion.accuracy if champion else None),
        (
            "Balanced accuracy",
            candidate.balanced_accuracy,
            champion.balanced_accuracy if champion else None,
        ),
        *_by_class(manifest, recipe),
    ]
    figures = (Figure(name, before, after) for name, after, before in pairs)
    return ReleaseNotes(
        version=manifest.version,
        story=_story(manifest),
        campaign=manifest.lineage.campaign,
        created_at=manifest.created_at,
        sites=tuple(sorted(part.site for part in manifest.lineage.sites)),
        threshold=manifest.threshold,
        figures=tuple(f for f in figures if f.after is not None or f.before is not None),
        checks=manifest.gate,
        cases=candidate.count,
        digest=manifest.model_digest,
    )


def _by_class(
    manifest: ReleaseManifest, recipe: Recipe
) -> Iterable[tuple[str, float | None, float | None]]:
    candidate, champion = manifest.metrics.candidate, manifest.metrics.champion
    same = champion is not None and champion.classes == candidate.classes
    before = champion.sensitivity if champion is not None and same else None
    for number, name in enumerate(candidate.classes):
        words = f"Sensitivity for {recipe.display_name(name)}"
        yield words, candidate.sensitivity[number], None if before is None else before[number]


def _story(manifest: ReleaseManifest) -> str:
    lineage = manifest.lineage
    if lineage.restores is not None:
        replaced = "" if lineage.replaces is None else f", in place of version {lineage.replaces}"
        return f"A return to the model of version {lineage.restores}{replaced}."
    rounds = f"{lineage.rounds} round{'' if lineage.rounds == 1 else 's'}"
    sites = len(lineage.sites)
    where = f" at {sites} hospital{'' if sites == 1 else 's'}" if sites else ""
    start = (
        "from the beginning"
        if lineage.base_release is None
        else f"on from version {lineage.base_release}"
    )
    return f"Trained {start}, in {rounds}{where}."
