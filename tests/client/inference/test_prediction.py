from pathlib import Path

import numpy as np
import pytest

from client.inference.asking import prepare_upload
from client.inference.prediction import Admission
from common.errors import Busy
from common.imaging import decode, prepare
from tests.client.serving import RECIPE, picture, release


def test_pixels_are_prepared_as_in_training() -> None:
    image = picture(5, size=(77, 31), format="JPEG")
    expected = prepare(decode(image), RECIPE.image)
    decoded, prepared = prepare_upload(image, RECIPE.image)
    np.testing.assert_array_equal(prepared, expected)
    np.testing.assert_array_equal(decoded, decode(image))


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
