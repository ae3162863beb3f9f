from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from client.cases.accepted_image import accept_image
from client.inference.asking import Asking, Made, answered
from client.inference.batching import Known, MicroBatcher
from client.inference.engine import Images, InferenceEngine
from client.inference.outputs import Outputs
from client.inference.result_cache import ResultCache
from client.monitoring.answer_statistics import answer_statistics
from client.reading.profile import SiteProfile
from client.reading.settings import ReadingSettings
from common.errors import ImageRefused
from common.imaging import decode, encode_png, prepare
from tests.client.serving import RECIPE, picture, release

SETTINGS = ReadingSettings()


class Counting(InferenceEngine):
    """An engine that counts its network calls."""

    calls = 0

    def outputs(self, images: Images) -> Outputs:
        self.calls += 1
        return super().outputs(images)


@pytest.fixture
def engine(tmp_path: Path) -> Counting:
    made = Counting.load(release(tmp_path, 1), device=torch.device("cpu"))
    made.calls = 0  # type: ignore[attr-defined]
    assert isinstance(made, Counting)
    return made


@pytest.fixture
def batcher() -> Any:
    made = MicroBatcher()
    yield made
    made.close()


def profile(engine: InferenceEngine, **parts: Any) -> SiteProfile:
    return SiteProfile(
        model_digest=engine.digest,
        recipe_digest=engine.recipe.digest,
        settings_digest=SETTINGS.digest,
        holdout_digest="1" * 64,
        holdout_patients=100,
        made_at=datetime(2026, 11, 21, tzinfo=UTC),
        **parts,
    )


def ask(
    batcher: MicroBatcher,
    engine: InferenceEngine,
    cache: ResultCache[Made],
    image: bytes | Images,
) -> Made:
    return batcher.submit(engine, Asking(image, engine, SETTINGS, cache)).result(30)


def test_equal_pixels_are_asked_about_once(batcher: MicroBatcher, engine: Counting) -> None:
    cache: ResultCache[Made] = ResultCache()
    first = ask(batcher, engine, cache, picture(1))
    again = ask(batcher, engine, cache, picture(1, format="BMP"))  # other bytes, the same pixels
    assert (first.cached, again) == (False, replace(first, cached=True))
    assert engine.calls == 1
    ask(batcher, engine, cache, picture(2))
    assert engine.calls == 2


def test_pixels_that_came_prepared_are_another_picture_than_a_file_of_them(
    tmp_path: Path, batcher: MicroBatcher
) -> None:
    image = RECIPE.image.model_copy(update={"region": "tissue"})
    recipe = RECIPE.model_copy(update={"image": image})
    engine = InferenceEngine.load(release(tmp_path, 1, recipe=recipe), device=torch.device("cpu"))
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[4:28, 4:20] = np.random.default_rng(1).integers(90, 200, (24, 16, 3))
    file = encode_png(pixels)
    assert not np.array_equal(prepare(decode(file), image), pixels)
    cache: ResultCache[Made] = ResultCache()
    of_the_file = ask(batcher, engine, cache, file)
    of_the_pixels = ask(batcher, engine, cache, pixels)
    assert not of_the_pixels.cached
    assert of_the_pixels.probabilities != of_the_file.probabilities
    for asked, known in ((file, of_the_file), (pixels, of_the_pixels)):
        again = ask(batcher, engine, cache, asked)
        assert (again.cached, again.probabilities) == (True, known.probabilities)


def test_another_profile_gets_another_answer(batcher: MicroBatcher, engine: Counting) -> None:
    cache: ResultCache[Made] = ResultCache()
    plain = ask(batcher, engine, cache, picture(1))
    engine.profile = profile(engine, temperature=4.0)
    warm = ask(batcher, engine, cache, picture(1))
    assert (plain.reading.calibrated, warm.reading.calibrated) == (False, True)
    assert plain.probabilities == warm.probabilities
    assert max(warm.reading.probabilities) < max(plain.reading.probabilities)
    engine.profile = None
    assert replace(ask(batcher, engine, cache, picture(1)), cached=False) == plain
    assert engine.calls == 2


def test_a_request_keeps_the_profile_that_it_began_with(engine: Counting) -> None:
    cache: ResultCache[Made] = ResultCache()
    engine.profile = profile(engine, temperature=4.0)
    began = Asking(picture(1), engine, SETTINGS, cache)
    engine.profile = None
    pixels = began.prepare()
    assert not isinstance(pixels, Known)
    reading = began.finish(engine.outputs(pixels[None])).reading
    assert reading.calibrated
    assert reading.profile_digest is not None
    later = Asking(picture(1), engine, SETTINGS, cache)
    assert not isinstance(later.prepare(), Known), "an answer read with another profile"


def test_what_is_kept_of_an_answer_is_what_is_shown_and_no_pixel(
    batcher: MicroBatcher, engine: Counting
) -> None:
    image = picture(3, size=(90, 50), format="JPEG")
    made = ask(batcher, engine, ResultCache(), image)
    kept = answered(made, engine, request_id="r1")
    assert kept.pixels == accept_image(image).pixels_digest
    assert kept.probabilities == made.probabilities
    assert (kept.threshold, kept.verdict) == (made.reading.threshold, made.reading.verdict)
    assert kept.uncertainty == made.reading.uncertainty
    pixels = prepare(decode(image), RECIPE.image)
    output = engine.outputs(pixels[None])
    expected = answer_statistics(pixels, output.logits[0], output.features[0])
    np.testing.assert_allclose(kept.statistics, expected, atol=1e-5)


def test_prepared_pixels_of_another_size_are_refused(
    batcher: MicroBatcher, engine: Counting
) -> None:
    good = prepare(decode(picture(1)), RECIPE.image)
    assert ask(batcher, engine, ResultCache(), good).probabilities
    with pytest.raises(ImageRefused) as refused:
        ask(batcher, engine, ResultCache(), good[:-1])
    assert refused.value.code == "pixels-shape"
