"""How much models that could as well have been trained disagree about an image.

The figure is the mutual information between answer and model (BALD, Houlsby et al. 2011,
arXiv:1112.5745) in units of its bound log K: 0 where all agree, however unsure each is; 1 where
each is sure of another class. The models are the releases that answer together, or else
Monte-Carlo dropout of the classifier (Gal and Ghahramani 2016, arXiv:1506.02142): `SAMPLES`
classifiers that each see another random part of the features.

The networks were not trained with such dropout, so the second is a heuristic, no posterior. So its
size means nothing by itself: an answer is referred only above a limit that the site's holdout gave,
and only if uncertainty was shown there to be higher for wrong verdicts than for right ones.

The masks are the same for all images and follow from the classifier's shape. An image's answer is
thus the same each time, and that of a copy with a changed pixel nearly so; masks drawn from each
image's digest would give those two unrelated noise.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from client.inference.outputs import Classifier, Features, Probabilities, probabilities_of
from client.reading.calibration import log_probabilities
from client.reading.parts import NotEnough
from client.reading.patients import Groups, Numbers, count, first_of_each, weights

if TYPE_CHECKING:
    from client.inference.engine import InferenceEngine

SAMPLES = 32
DROPPED = 51
"""Of 256 features, about one in five is hidden from a sample."""
FEWEST_WRONG = 10
HIGHEST_P = 0.05


class DropoutHeads:
    """A classifier as `SAMPLES` of them; immutable, for any thread.

    Parameters
    ----------
    classifier : Classifier
        K classes, D features.
    """

    def __init__(self, classifier: Classifier) -> None:
        classes, features = classifier.weights.shape
        kept = _masks(features)[:, None, :] * np.float32(256 / (256 - DROPPED))
        thinned = classifier.weights[None] * kept
        self._weights = np.ascontiguousarray(thinned.reshape(SAMPLES * classes, features).T)
        self._bias = classifier.bias
        self._classes = classes

    def probabilities(self, features: Features, temperature: float = 1.0) -> Probabilities:
        """Return each sample's class probabilities, float64 (N, `SAMPLES`, K)."""
        flat = features @ self._weights
        logits = flat.reshape(len(features), SAMPLES, self._classes) + self._bias
        return probabilities_of(logits.astype(np.float64) / temperature)


def opinions(
    engine: InferenceEngine,
    features: Features,
    members: Probabilities | None,
    temperature: float | None,
) -> Probabilities | None:
    """Return what the models say, float64 (N, M, K), each at the temperature.

    Those of ``members``, (N, M, K), where several answer together, else of the classifier's
    dropout samples; None of a network that has no linear classifier.
    """
    heat = temperature or 1.0
    if members is not None:
        return probabilities_of(log_probabilities(members) / heat)
    if engine.dropout is None:
        return None
    return engine.dropout.probabilities(features, heat)


def mutual_information(members: Probabilities) -> Numbers:
    """Return disagreement in [0, 1], float64 (N,), of (N, M, K) probabilities of M models."""
    together = _entropy(members.mean(axis=1))
    apart = _entropy(members).mean(axis=1)
    result: Numbers = np.clip((together - apart) / math.log(members.shape[2]), 0.0, 1.0)
    return result


def choose_limit(
    uncertainty: Numbers, wrong: NDArray[np.bool_], patients: Groups, *, refer_at_most: float
) -> float:
    """Return the uncertainty above which an answer goes to a human.

    Of the limits that refer no more than ``refer_at_most`` of the holdout's images (patients
    weigh the same), the one with the greatest difference between the shares of wrong and of right
    verdicts above it (Youden 1950). It was chosen on those patients, so it does a little worse
    on new ones.

    Raises
    ------
    NotEnough
        With fewer than `FEWEST_WRONG` patients with a wrong verdict, or if uncertainty does not
        tell them from the others (Mann-Whitney, one image a patient, p >= 0.05).
    """
    number = count(patients[wrong])
    if number < FEWEST_WRONG:
        raise NotEnough(f"{number} holdout patients with a wrong verdict; {FEWEST_WRONG} needed")
    one = first_of_each(patients)
    high, low = uncertainty[one][wrong[one]], uncertainty[one][~wrong[one]]
    told = len(high) and len(low) and mannwhitneyu(high, low, alternative="greater").pvalue
    if not told or told >= HIGHEST_P:
        raise NotEnough("uncertainty does not tell wrong verdicts from right ones on the holdout")
    share = weights(patients)
    candidates = np.unique(uncertainty)
    above = uncertainty[None, :] > candidates[:, None]
    referred = above @ share / share.sum()
    caught = above @ (share * wrong) / (share @ wrong)
    alarmed = above @ (share * ~wrong) / (share @ ~wrong)
    gain = np.where(referred <= refer_at_most, caught - alarmed, -1.0)
    best = int(gain.argmax())
    if gain[best] <= 0:
        raise NotEnough(f"no limit that refers {refer_at_most:g} at most finds wrong verdicts")
    return float(candidates[best])


def _masks(features: int) -> NDArray[np.float32]:
    """Return what each sample sees, 0 or 1, float32 (`SAMPLES`, D); the same on every machine."""
    stream = hashlib.shake_256(f"wardround dropout {features}".encode())
    drawn = np.frombuffer(stream.digest(SAMPLES * features), np.uint8)
    return (drawn.reshape(SAMPLES, features) >= DROPPED).astype(np.float32)


def _entropy(probabilities: Probabilities) -> Numbers:
    logs = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    result: Numbers = -(probabilities * logs).sum(axis=-1)
    return result
