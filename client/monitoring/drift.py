"""Whether the answers of late look as those of the release's holdout did.

Three kinds are told apart: ``inputs`` (figures of the image), ``embeddings`` (projections of what
the classifier sees) and ``predictions`` (class probabilities, and the mix of likeliest classes).
A kind has drifted where two things are so:

1. Chance does not explain it. Each kind may raise a false alarm once in a thousand looks
   (`CHANCE`): figures by Kolmogorov-Smirnov tests, the mix by a chi-squared test, both corrected
   for their number by Benjamini and Hochberg (1995); embeddings by one kernel test of all
   projections at once.
2. It is of a size that matters: the population stability index of a figure, freed of what chance
   adds, is above 0.1. It is large where the index' lower bound is above 0.25 (Siddiqi 2006,
   Credit Risk Scorecards, chapter 9).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from client.answers.answered import Answered
from client.monitoring.answer_statistics import INPUTS, PROJECTIONS
from client.monitoring.comparison import (
    Discrepancy,
    Interval,
    adjusted,
    bin_edges,
    binned,
    kernel_discrepancy,
    kolmogorov_smirnov,
    mix_p_value,
    stability,
)
from client.monitoring.input_statistics import IMAGE_STATISTICS
from client.monitoring.reference import DriftReference

Kind: TypeAlias = Literal["inputs", "embeddings", "predictions"]
KINDS: tuple[Kind, ...] = ("inputs", "embeddings", "predictions")

CHANCE = 0.001
SOME, MUCH = 0.1, 0.25
FIFTHS, TENTHS, ENOUGH_FOR_TENTHS = 5, 10, 200
PROJECTED = tuple(f"projection-{number + 1}" for number in range(PROJECTIONS))
MIX = "mix"


@dataclass(frozen=True)
class FigureDrift:
    """One figure, compared.

    Attributes
    ----------
    name : str
        Of `IMAGE_STATISTICS`, ``projection-<n>``, a class, or ``mix``.
    stability : Interval
        The population stability index.
    distance : float or None
        Kolmogorov-Smirnov's; None of the mix.
    p_value : float
        Corrected for the number of figures of the kind.
    level : int
        0 none that chance does not explain, 1 some, 2 much.
    """

    name: str
    stability: Interval
    distance: float | None
    p_value: float
    level: int


@dataclass(frozen=True)
class KindDrift:
    """All figures of a kind; ``level`` is None where there are too few answers to say.

    ``cases`` is the number of images compared. ``discrepancy`` is of embeddings alone.
    """

    kind: Kind
    level: int | None
    cases: int
    figures: tuple[FigureDrift, ...] = ()
    discrepancy: Discrepancy | None = None

    @property
    def worst(self) -> FigureDrift | None:
        """The figure with the largest index."""
        return max(self.figures, key=lambda one: one.stability.estimate, default=None)


@dataclass(frozen=True)
class Model:
    """Whose answers a reference is of: embeddings and predictions of another say nothing."""

    digest: str
    head_digest: str | None
    classes: tuple[str, ...]


def drift(
    reference: DriftReference, answers: Sequence[Answered], model: Model, *, fewest: int
) -> tuple[KindDrift, ...]:
    """Compare answers with a reference.

    Parameters
    ----------
    reference : DriftReference
        Made at the release.
    answers : sequence of Answered
        Of one task, oldest first; of each image the last answer counts.
    model : Model
        That the reference was made with.
    fewest : int
        With fewer images nothing is said of a kind.

    Returns
    -------
    tuple of KindDrift
        In the order of `KINDS`.
    """
    last = {answer.pixels: answer for answer in answers}.values()
    width = INPUTS + PROJECTIONS + len(model.classes)
    wide = [a.statistics for a in last if _of(a, model) and len(a.statistics) == width]
    inputs = np.array([a.statistics[:INPUTS] for a in last if len(a.statistics) >= INPUTS])
    network = np.array(wide).reshape(-1, width)[:, INPUTS:]
    return compare(reference, inputs.reshape(-1, INPUTS), network, model.classes, fewest=fewest)


def compare(
    reference: DriftReference,
    inputs: NDArray[np.float64],
    network: NDArray[np.float64],
    classes: Sequence[str],
    *,
    fewest: int,
) -> tuple[KindDrift, ...]:
    """Compare tables of figures with a reference; see `drift`.

    Parameters
    ----------
    inputs : ndarray of float64 (N, INPUTS)
    network : ndarray of float64 (M, PROJECTIONS + K)
    classes : sequence of str
        K names.
    """
    generator = np.random.default_rng(0)  # the same answers, the same verdict
    old, start = reference.table(), INPUTS + PROJECTIONS
    found = []
    if not reference.fits or len(inputs) < fewest:
        found.append(KindDrift("inputs", None, len(inputs)))
    else:
        figures = compare_figures(old[:, :INPUTS], inputs, IMAGE_STATISTICS, generator)
        found.append(KindDrift("inputs", _level(figures), len(inputs), figures))
    if len(network) < fewest or reference.classes != len(classes):
        rest: tuple[Kind, ...] = ("embeddings", "predictions")
        return (*found, *(KindDrift(kind, None, len(network)) for kind in rest))
    found.append(_embeddings(old[:, INPUTS:start], network[:, :PROJECTIONS], generator))
    figures = _predictions(old[:, start:], network[:, PROJECTIONS:], classes, generator)
    found.append(KindDrift("predictions", _level(figures), len(network), figures))
    return tuple(found)


def compare_figures(
    old: NDArray[np.float64],
    new: NDArray[np.float64],
    names: Sequence[str],
    generator: np.random.Generator,
    *,
    mixes: Sequence[tuple[str, NDArray[np.int64], NDArray[np.int64]]] = (),
) -> tuple[FigureDrift, ...]:
    """Compare figures one by one, corrected for their number.

    Parameters
    ----------
    old, new : ndarray of float64 (N, F), (M, F)
    names : sequence of str
        F names.
    generator : numpy.random.Generator
        Of the intervals.
    mixes : sequence of (str, ndarray of int64, ndarray of int64)
        Names, and counts by class on either side.
    """
    parts: list[tuple[str, Interval, float | None, float]] = []
    for name, before, after in zip(names, old.T, new.T, strict=True):
        distance, p_value = kolmogorov_smirnov(before, after)
        parts.append((name, _stability(before, after, generator), distance, p_value))
    for name, counted, again in mixes:
        index = stability(counted, again, generator)
        parts.append((name, index, None, mix_p_value(counted, again)))
    corrected = adjusted([p_value for *_, p_value in parts])
    return tuple(
        FigureDrift(name, index, distance, p_value, level_of(index, p_value))
        for (name, index, distance, _), p_value in zip(parts, corrected, strict=True)
    )


def level_of(index: Interval, p_value: float) -> int:
    """Return 0 (none that chance does not explain, or little), 1 (some) or 2 (much)."""
    if p_value > CHANCE or index.estimate <= SOME:
        return 0
    return 2 if index.low > MUCH else 1


def _embeddings(
    old: NDArray[np.float64], new: NDArray[np.float64], generator: np.random.Generator
) -> KindDrift:
    found = kernel_discrepancy(old, new, generator)
    figures = compare_figures(old, new, PROJECTED, generator)
    largest = max((one.stability for one in figures), key=lambda index: index.estimate)
    return KindDrift("embeddings", level_of(largest, found.p_value), len(new), figures, found)


def _predictions(
    old: NDArray[np.float64],
    new: NDArray[np.float64],
    classes: Sequence[str],
    generator: np.random.Generator,
) -> tuple[FigureDrift, ...]:
    size = len(classes)
    counts = [np.bincount(side.argmax(axis=1), minlength=size) for side in (old, new)]
    told = slice(1, None) if size == 2 else slice(None)  # of two classes one says it all
    names, mix = classes[told], (MIX, counts[0], counts[1])
    return compare_figures(old[:, told], new[:, told], names, generator, mixes=(mix,))


def _stability(
    old: NDArray[np.float64], new: NDArray[np.float64], generator: np.random.Generator
) -> Interval:
    bins = TENTHS if min(len(old), len(new)) >= ENOUGH_FOR_TENTHS else FIFTHS
    edges = bin_edges(old, bins)
    return stability(binned(old, edges), binned(new, edges), generator)


def _level(figures: Sequence[FigureDrift]) -> int:
    return max(one.level for one in figures)


def _of(answer: Answered, model: Model) -> bool:
    return (answer.model_digest, answer.head_digest) == (model.digest, model.head_digest)
