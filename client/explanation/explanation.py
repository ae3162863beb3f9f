"""One image explained: by the network that answers, drawn on the picture, and in words."""

from __future__ import annotations

import time
import weakref
from dataclasses import dataclass, field

import numpy as np

from client.explanation.budget import Budget
from client.explanation.drawing import draw, png
from client.explanation.methods import Heat, Method, heat_map
from client.explanation.twin import Twin, make_twin
from client.explanation.words import RegionShare, region_shares, sentence
from client.inference.engine import InferenceEngine
from common.errors import InputRefused
from common.imaging import decode, normalise, placement, prepare
from common.release import ReleaseManifest


@dataclass(frozen=True)
class Explanation:
    """What in an image speaks for a class, as one model sees it.

    Attributes
    ----------
    manifest : ReleaseManifest
        Of the release that answered.
    head_digest : str or None
        Of the site's own head, where that answered.
    method : Method
    class_name : str
        The explained class.
    probability : float
        What the answer gives it, uncalibrated.
    heat : ndarray of float32, (S, S)
        Over the network's square, in [0, 1].
    overlay : bytes
        PNG of the picture with the heat drawn on it.
    shares : tuple of RegionShare
        Hottest first.
    words : str
        The same as a sentence.
    seconds : float
        From the image's bytes to the PNG, waiting left out.
    together_with : tuple of int
        Versions of older releases whose mean with this one's the probability is; the heat is of
        this one's network alone.
    """

    manifest: ReleaseManifest
    head_digest: str | None
    method: Method
    class_name: str
    probability: float
    heat: Heat = field(repr=False)
    overlay: bytes = field(repr=False)
    shares: tuple[RegionShare, ...]
    words: str
    seconds: float
    together_with: tuple[int, ...] = ()


class Explainer:
    """Explains answers of engines, whichever serve; for one thread at a time.

    An engine's twin is kept as long as the engine itself, and shares its weights.
    """

    def __init__(self) -> None:
        self._twins: weakref.WeakKeyDictionary[InferenceEngine, Twin] = weakref.WeakKeyDictionary()

    def explain(
        self,
        engine: InferenceEngine,
        image: bytes,
        *,
        method: Method = Method.grad_cam,
        class_name: str | None = None,
        budget: Budget,
    ) -> Explanation:
        """Explain one image.

        Parameters
        ----------
        engine : InferenceEngine
            The model that answered; its torch network is asked, whatever runtime serves.
        image : bytes
            A file as uploaded.
        method : Method
        class_name : str, optional
            Of the recipe's classes. By default the one that the verdict rests on: the most
            probable of the positive classes where the verdict is positive, else the most
            probable of all.
        budget : Budget
            How long it may take.

        Raises
        ------
        InputRefused
            ``class-unknown``; ImageRefused as `common.imaging.decode`.
        Busy
            If the budget is spent.
        ModelError
            If the network cannot be explained by this method, or fails.
        """
        started = time.monotonic()
        spec, classes = engine.recipe.image, engine.recipe.classes
        pixels = decode(image)
        prepared = prepare(pixels, spec)[None]
        row = engine.answers(prepared).probabilities[0]
        target = _target(engine, row, class_name)
        budget.check()
        heat = heat_map(method, self._twin(engine), normalise(prepared, spec), target, budget)
        where = placement(pixels, spec)
        shares = region_shares(heat, where)
        return Explanation(
            manifest=engine.manifest,
            head_digest=engine.head_digest,
            method=method,
            class_name=classes[target],
            probability=float(row[target]),
            heat=heat,
            overlay=png(draw(pixels, heat, where)),
            shares=shares,
            words=sentence(shares, classes[target]),
            seconds=time.monotonic() - started,
            together_with=tuple(member.version for member in engine.members),
        )

    def _twin(self, engine: InferenceEngine) -> Twin:
        twin = self._twins.get(engine)
        if twin is None:
            twin = self._twins[engine] = make_twin(engine.network, engine.recipe.image.size)
        return twin


def _target(
    engine: InferenceEngine,
    row: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    wanted: str | None,
) -> int:
    classes = engine.recipe.classes
    if wanted is None:
        positive = [classes.index(name) for name in engine.recipe.decision.positive_classes]
        if row[positive].sum() >= _threshold(engine):
            return max(positive, key=lambda index: float(row[index]))
        return int(row.argmax())
    if wanted not in classes:
        raise InputRefused(
            "The class is none of this task's.",
            action=f"Use one of {', '.join(classes)}, or leave it out.",
            code="class-unknown",
        )
    return classes.index(wanted)


def _threshold(engine: InferenceEngine) -> float:
    """Return what the verdict is made with: the site's operating point, or the release's."""
    profile = engine.profile
    point = profile.operating_point if profile is not None else None
    return engine.manifest.threshold if point is None else point.threshold
