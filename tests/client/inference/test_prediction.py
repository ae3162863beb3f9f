from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.inference.prediction import Admission, Prediction, prepare_upload
from common.errors import Busy
from common.imaging import decode, prepare
from common.recipe import DecisionSpec
from common.release import ReleaseManifest
from tests.client.serving import RECIPE, picture, release

K = len(RECIPE.classes)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> ReleaseManifest:
    return release(tmp_path_factory.mktemp("releases"), 1).manifest


def with_threshold(manifest: ReleaseManifest, threshold: float) -> ReleaseManifest:
    return manifest.model_copy(update={"threshold": threshold})


def even() -> tuple[float, ...]:
    return (1 / K,) * K


def test_the_threshold_itself_is_positive(manifest: ReleaseManifest) -> None:
    total = Prediction(manifest, even(), 0.0).positive_probability
    assert total == pytest.approx(len(RECIPE.decision.positive_classes) / K)
    assert Prediction(with_threshold(manifest, total), even(), 0.0).verdict == "positive"
    above = float(np.nextafter(total, 1))
    assert Prediction(with_threshold(manifest, above), even(), 0.0).verdict == "negative"


def test_only_the_positive_classes_count(manifest: ReleaseManifest) -> None:
    recipe = RECIPE.model_copy(update={"decision": DecisionSpec(positive_classes=("vasc",))})
    vascular = manifest.model_copy(update={"recipe": recipe})
    probabilities = (0.0,) * (K - 1) + (0.4,)
    assert Prediction(vascular, probabilities, 0.0).positive_probability == 0.4


@given(st.lists(st.floats(0, 100), min_size=K, max_size=K).filter(lambda v: sum(v) > 0))
def test_rounding_never_leads_above_one(manifest: ReleaseManifest, weights: list[float]) -> None:
    total = sum(weights)
    probabilities = tuple(weight / total for weight in weights)
    assert 0 <= Prediction(manifest, probabilities, 0.0).positive_probability <= 1


def test_pixels_are_prepared_as_in_training() -> None:
    image = picture(5, size=(77, 31), format="JPEG")
    expected = prepare(decode(image), RECIPE.image)
    np.testing.assert_array_equal(prepare_upload(image, RECIPE.image), expected)


def test_admission_gives_places_back_even_after_a_failure() -> None:
    admission = Admission(1)

    def refused_inside() -> None:
        with admission():
            with pytest.raises(Busy), admission():
                pass
            raise KeyError

    with pytest.raises(KeyError):
        refused_inside()
    with admission():
        assert admission.admitted == 1
    assert admission.admitted == 0


def test_releases_can_be_told_apart(tmp_path: Path) -> None:
    first, second = release(tmp_path, 1, favours="mel"), release(tmp_path, 2, favours="nv")
    assert first.manifest.model_digest != second.manifest.model_digest
