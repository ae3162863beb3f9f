"""A site's profile of one model: what its own holdout patients taught about the answers.

Made beside the running model from the scores of the site's confirmed holdout, and kept as JSON
that only the site's user can read. It holds figures over patients and, for drift, rows of figures
of single images; no image and no name. What too few patients can tell is None, and
`SiteProfile.missing` says why.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AwareDatetime, Field

from client.monitoring.reference import DriftReference
from client.reading.fitting import Fitting
from client.reading.parts import (
    Conformal,
    Count,
    ImageLimits,
    Missing,
    Ordinary,
    Part,
    SiteOperatingPoint,
)
from client.reading.patients import count
from common.plan import Hex64
from common.recipe import Fraction

if TYPE_CHECKING:
    from client.inference.engine import InferenceEngine
    from client.inference.holdout_scores import HoldoutScores
    from client.reading.settings import ReadingSettings

log = logging.getLogger(__name__)


class SiteProfile(Part):
    """What the site's holdout taught about one model.

    Attributes
    ----------
    model_digest, head_digest, recipe_digest : str
        Whose answers it is for; ``head_digest`` is of the site's own head, None without one.
    members : tuple of str
        Digests of the models that answer together with that one, none by default.
    settings_digest, holdout_digest : str
        SHA-256 of the ``[reading]`` table, and of the cases that it was made from.
    holdout_patients : int
        How many those are of.
    temperature : float or None
        The logits are divided by it (Guo et al. 2017, arXiv:1706.04599).
    uncertainty_limit : float or None
        Answers above it go to a human.
    missing : tuple of Missing
        Which parts are None, and why.
    """

    form: Literal[1] = 1
    model_digest: Hex64
    head_digest: Hex64 | None = None
    members: tuple[Hex64, ...] = ()
    recipe_digest: Hex64
    settings_digest: Hex64
    holdout_digest: Hex64
    holdout_patients: Count
    made_at: AwareDatetime
    temperature: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    operating_point: SiteOperatingPoint | None = None
    conformal: Conformal | None = None
    uncertainty_limit: Fraction | None = None
    out_of_distribution: Ordinary | None = None
    image_limits: ImageLimits | None = None
    drift: DriftReference | None = None
    missing: tuple[Missing, ...] = ()

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of its JSON."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def is_of(self, engine: InferenceEngine, settings: ReadingSettings) -> bool:
        """Tell whether it was made for this model, head and company, under these settings."""
        mine = (self.model_digest, self.head_digest, self.members, self.recipe_digest)
        asked = (engine.digest, engine.head_digest, engine.member_digests, engine.recipe.digest)
        rule, ordinary = self.conformal, self.out_of_distribution
        classes, classifier = len(engine.recipe.classes), engine.classifier
        fits = (rule is None or len(rule.quantiles) == classes) and (
            ordinary is None or classifier is None or ordinary.features == classifier.features
        )
        return fits and mine == asked and self.settings_digest == settings.digest


def fit_profile(
    scores: HoldoutScores,
    engine: InferenceEngine,
    settings: ReadingSettings,
    *,
    others: Sequence[HoldoutScores] = (),
) -> SiteProfile:
    """Learn from the holdout what can be learnt; nothing is put in the place of the rest.

    Parameters
    ----------
    scores : HoldoutScores
        The engine's own, of the site's confirmed holdout.
    engine : InferenceEngine
        Whose manifest, classifier and members are used; it is not changed.
    settings : ReadingSettings
        The site's.
    others : sequence of HoldoutScores
        Those of the engine's ``members``, in their order, on the same cases.
    """
    fitting = Fitting(scores, engine, settings, others)
    temperature = fitting.part("temperature", fitting.temperature)
    point = fitting.part("operating-point", fitting.operating_point)
    threshold = point.threshold if point else engine.manifest.threshold
    limit = partial(fitting.uncertainty_limit, temperature, threshold)
    profile = SiteProfile(
        model_digest=engine.digest,
        head_digest=engine.head_digest,
        members=engine.member_digests,
        recipe_digest=engine.recipe.digest,
        settings_digest=settings.digest,
        holdout_digest=scores.digest,
        holdout_patients=count(scores.patients),
        made_at=datetime.now(UTC),
        temperature=temperature,
        operating_point=point,
        conformal=fitting.part("conformal", fitting.conformal),
        uncertainty_limit=fitting.part("uncertainty-limit", limit),
        out_of_distribution=fitting.part("out-of-distribution", fitting.ordinary),
        image_limits=fitting.part("image-limits", fitting.image_limits),
        drift=fitting.part("drift", fitting.drift),
        missing=tuple(fitting.missing),
    )
    absent = ",".join(m.part for m in profile.missing) or "-"
    log.info("event=profile-made version=%d missing=%s", engine.version, absent)
    return profile
