"""Images that every network must answer sensibly before it may answer a clinician."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from common.errors import ModelError, ReleaseError

if TYPE_CHECKING:
    from client.inference.engine import InferenceEngine

SELF_TEST_BATCH = 4
SUM_TOLERANCE = 1e-6
BATCH_TOLERANCE = 1e-3


def golden_images(side: int) -> NDArray[np.uint8]:
    """Return fixed noise, half of it smooth as pictures are: uint8 (4, side, side, 3)."""
    dice = np.random.default_rng(0)
    noise = dice.integers(0, 256, (SELF_TEST_BATCH, side, side, 3)).astype(np.uint8)
    coarse = dice.integers(0, 256, (SELF_TEST_BATCH // 2, 4, 4, 3)).astype(np.uint8)
    for number, image in enumerate(coarse):
        resized = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
        noise[number] = np.asarray(resized)
    return noise


def self_test(engine: InferenceEngine) -> None:
    """Hold an engine to probabilities that do not depend on the images beside them.

    Raises
    ------
    ReleaseError
        With code ``release-self-test``.
    torch.OutOfMemoryError
        Which says nothing about the release.
    """
    images = golden_images(engine.recipe.image.size)
    try:
        together, alone = engine.probabilities(images), engine.probabilities(images[:1])
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ModelError) as error:
        raise self_test_failed(f"It does not run ({type(error).__name__}).") from error
    if together.shape != (SELF_TEST_BATCH, len(engine.recipe.classes)):
        raise self_test_failed("It has not one output a class.")
    if np.abs(together.sum(axis=1) - 1).max() > SUM_TOLERANCE:
        raise self_test_failed("Its probabilities do not sum to 1.")
    if np.abs(together[:1] - alone).max() > BATCH_TOLERANCE:
        raise self_test_failed("An image's answer depends on the images beside it.")


def self_test_failed(meaning: str) -> ReleaseError:
    """Return the error of a release that may not answer."""
    return ReleaseError(
        "A released model failed its self-test.",
        meaning=meaning,
        action="The model before it keeps answering; tell the coordinator.",
        code="release-self-test",
    )
