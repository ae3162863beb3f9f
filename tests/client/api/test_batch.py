"""`POST /predict/batch`: every image has an answer of its own."""

from __future__ import annotations

from typing import Any

import pytest

from tests.client.serving import ServedSite, picture


def batch(site: ServedSite, *images: bytes) -> Any:
    files = [("image", (f"{index}.png", image)) for index, image in enumerate(images)]
    return site.call("POST", "/predict/batch", files=files)


def test_each_image_is_answered_as_alone(site: ServedSite) -> None:
    answer = batch(site, picture(1), b"no image", picture(2)).json()
    assert [found["index"] for found in answer["answers"]] == [0, 1, 2]
    good, bad, other = answer["answers"]
    assert (bad["prediction"], bad["problem"]["status"]) == (None, 415)
    assert bad["problem"]["request_id"] == f"{answer['request_id']}-1"
    for found, seed in ((good, 1), (other, 2)):
        alone = site.predict(picture(seed)).json()
        assert found["problem"] is None
        assert found["prediction"]["probabilities"] == pytest.approx(
            alone["probabilities"], abs=1e-4
        )
    assert site.services.admission.admitted == 0


def test_sixteen_and_no_more(site: ServedSite) -> None:
    many = [picture(seed) for seed in range(16)]
    assert len(batch(site, *many).json()["answers"]) == 16
    answer = batch(site, *many, picture(99))
    assert (answer.status_code, answer.json()["code"]) == (422, "upload-malformed")


def test_images_without_a_place_say_so_and_the_others_are_answered(site: ServedSite) -> None:
    admission = site.services.admission
    admission.admitted = admission.capacity - 2
    answers = batch(site, *(picture(seed) for seed in range(4))).json()["answers"]
    assert [None if a["problem"] is None else a["problem"]["status"] for a in answers] == [
        *(None, None),
        *(429, 429),
    ]
    admission.admitted = admission.capacity
    assert batch(site, picture()).status_code == 429
    admission.admitted = 0


def test_too_large_alone_or_together(site: ServedSite) -> None:
    assert batch(site, bytes(100_001)).status_code == 413
    assert batch(site, *[bytes(99_000)] * 5).status_code == 413
    answer = batch(site, *[bytes(90_000)] * 4)
    assert {a["problem"]["status"] for a in answer.json()["answers"]} == {415}
    assert site.services.admission.admitted == 0


def test_without_a_model_nothing_is_read(site_without_model: ServedSite) -> None:
    assert batch(site_without_model, picture()).status_code == 503
