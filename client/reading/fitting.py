"""Fitting the parts of one profile, each of which may say that the holdout is not enough for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from client.monitoring.reference import FEWEST_PATIENTS, DriftReference, make_reference
from client.reading.calibration import calibrated, fit_temperature, log_probabilities
from client.reading.conformal import fit_conformal
from client.reading.image_quality import fit_image_limits
from client.reading.operating_point import (
    choose_operating_point,
    positive_mask,
    positive_probability,
)
from client.reading.ordinary import fit_ordinary
from client.reading.parts import (
    Conformal,
    ImageLimits,
    Missing,
    NotEnough,
    Ordinary,
    PartName,
    SiteOperatingPoint,
)
from client.reading.uncertainty import choose_limit, mutual_information, opinions

if TYPE_CHECKING:
    from client.inference.engine import InferenceEngine
    from client.inference.holdout_scores import HoldoutScores
    from client.reading.settings import ReadingSettings

log = logging.getLogger(__name__)

T = TypeVar("T")


class Fitting:
    """One holdout, one engine, one table of settings; `missing` grows by what could not be had.

    Parameters
    ----------
    scores : HoldoutScores
        The engine's.
    engine : InferenceEngine
    settings : ReadingSettings
    others : sequence of HoldoutScores
        Those of the engine's members.
    """

    def __init__(
        self,
        scores: HoldoutScores,
        engine: InferenceEngine,
        settings: ReadingSettings,
        others: Sequence[HoldoutScores],
    ) -> None:
        self.missing: list[Missing] = []
        self._scores, self._engine, self._settings = scores, engine, settings
        self._patients = scores.patients
        own = calibrated(scores.logits, None)
        self._members = None
        if engine.members and [o.cases for o in others] == [scores.cases] * len(engine.members):
            self._members = np.stack([own, *(calibrated(o.logits, None) for o in others)], axis=1)
        self._together = own if self._members is None else self._members.mean(axis=1)
        positive = positive_mask(engine.recipe)
        self._positive = positive_probability(self._together, positive)
        self._truth = positive[scores.labels]

    def part(self, name: PartName, fit: Callable[[], T]) -> T | None:
        """Return a part; None where it cannot be had, and why in `missing`."""
        try:
            if not self._scores.cases:
                raise NotEnough("no confirmed holdout case")
            if self._engine.members and self._members is None:
                raise NotEnough("the models that answer together were not scored on the same cases")
            return fit()
        except NotEnough as reason:
            why = str(reason)[:200]
        except Exception as error:  # one part must not keep a release from answering
            log.warning("event=profile-part part=%s type=%s", name, type(error).__name__)
            why = f"it could not be computed ({type(error).__name__})"
        self.missing.append(Missing(part=name, why=why))
        return None

    def temperature(self) -> float:
        """Fit the temperature; all of these raise NotEnough."""
        if not self._settings.calibrate:
            raise NotEnough("turned off in site.toml")
        logits = log_probabilities(self._together)
        return fit_temperature(logits, self._scores.labels, self._patients)

    def operating_point(self) -> SiteOperatingPoint:
        """Choose the site's own threshold, where it wants one."""
        wanted = self._settings.wanted_sensitivity
        if wanted is None:
            raise NotEnough("site.toml asks for no sensitivity; the release's threshold stays")
        return choose_operating_point(self._positive, self._truth, self._patients, wanted=wanted)

    def conformal(self) -> Conformal:
        """Make the rule for prediction sets."""
        return fit_conformal(self._together, self._scores.labels, self._patients, self._settings)

    def uncertainty_limit(self, temperature: float | None, threshold: float) -> float:
        """Choose the limit above which an answer is referred."""
        members = opinions(self._engine, self._scores.features, self._members, temperature)
        if members is None:
            raise NotEnough("the network does not end in a linear classifier")
        wrong = (self._positive >= threshold) != self._truth
        most = self._settings.refer_at_most
        return choose_limit(mutual_information(members), wrong, self._patients, refer_at_most=most)

    def ordinary(self) -> Ordinary:
        """Describe the features of ordinary images."""
        share = self._settings.false_alarms
        return fit_ordinary(self._scores.features, self._patients, false_alarms=share)

    def image_limits(self) -> ImageLimits:
        """Describe the figures of ordinary images."""
        share = self._settings.false_alarms
        return fit_image_limits(self._scores.statistics, self._patients, false_alarms=share)

    def drift(self) -> DriftReference:
        """Make the reference that drift is measured against."""
        reference = make_reference(self._scores)
        if reference is None:
            raise NotEnough(f"{FEWEST_PATIENTS} holdout patients are needed")
        return reference
