from pathlib import Path

import numpy as np
import pytest
import torch
from sqlalchemy import select

from client.cases.tables import AUDIT
from client.inference.engine import Images, InferenceEngine
from client.inference.outputs import Outputs
from common.imaging import decode, prepare, to_tensor
from common.model import build_model, load_tensors
from tests.client.serving import RECIPE, ServedSite, picture, release


def test_prediction_names_the_model_and_holds_the_threshold(site: ServedSite) -> None:
    answer = site.predict(picture())
    assert answer.status_code == 200
    body = answer.json()
    served = site.services.holder.require()
    assert (body["model_version"], body["model_digest"]) == (1, served.digest)
    assert list(body["probabilities"]) == list(RECIPE.classes)
    assert sum(body["probabilities"].values()) == pytest.approx(1)
    positive = sum(body["probabilities"][name] for name in RECIPE.decision.positive_classes)
    assert body["positive_probability"] == pytest.approx(positive)
    assert body["verdict"] == "positive"
    assert body["threshold"] == RECIPE.decision.threshold
    assert body["milliseconds"] > 0
    assert body["request_id"] == answer.headers["x-request-id"]


def test_a_model_that_favours_a_benign_class_answers_negative(
    site: ServedSite, tmp_path: object
) -> None:
    site.publish(release(tmp_path, 2, favours="nv"))  # type: ignore[arg-type]
    body = site.predict(picture()).json()
    assert (body["model_version"], body["verdict"]) == (2, "negative")


def test_answer_is_the_training_path_and_the_network_itself(site: ServedSite) -> None:
    image = picture(3, size=(90, 50), format="JPEG")
    served = site.releases.current()
    assert served is not None
    network = build_model(RECIPE, pretrained=False).eval()
    load_tensors(network, served.load())
    batch = to_tensor(prepare(decode(image), RECIPE.image)[None], RECIPE.image)
    with torch.no_grad():
        expected = torch.softmax(network(batch).double(), 1)[0].numpy()
    got = list(site.predict(image).json()["probabilities"].values())
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_without_a_model_it_says_when_to_come_back(site_without_model: ServedSite) -> None:
    answer = site_without_model.predict(picture())
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["code"] == "no-model"


def test_as_many_uploads_as_are_admitted_and_no_more(
    site: ServedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    admission = site.services.admission
    monkeypatch.setattr(admission, "admitted", admission.capacity)
    answer = site.predict(picture())
    assert (answer.status_code, answer.json()["code"]) == (429, "busy")
    assert int(answer.headers["retry-after"]) > 0
    monkeypatch.setattr(admission, "admitted", 0)
    assert site.predict(picture()).status_code == 200
    assert admission.admitted == 0


def test_a_network_that_breaks_gives_a_problem_and_lives_on(
    site: ServedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: InferenceEngine, images: object) -> object:
        raise RuntimeError("secret text")

    with monkeypatch.context() as patch:
        patch.setattr(InferenceEngine, "answers", broken)
        answer = site.predict(picture())
    assert (answer.status_code, answer.json()["code"]) == (503, "model")
    assert "secret" not in answer.text
    assert site.predict(picture()).status_code == 200


def test_the_same_pixels_are_answered_again_without_the_network_and_audited(
    site: ServedSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    computed = InferenceEngine.answers

    def counted(self: InferenceEngine, images: Images) -> Outputs:
        asked.append(len(images))
        return computed(self, images)

    monkeypatch.setattr(InferenceEngine, "answers", counted)
    first, again = site.predict(picture(1)), site.predict(picture(1))
    other = site.predict(picture(2))
    assert [a.json()["cached"] for a in (first, again, other)] == [False, True, False]
    assert sum(asked) == 2
    one, two = first.json(), again.json()
    differ = {name for name in one if one[name] != two[name]}
    assert differ == {"request_id", "milliseconds", "cached"}
    with site.services.store._engine.connect() as database:
        lines = " ".join(database.execute(select(AUDIT.c.body)).scalars())
    assert all(a.json()["request_id"] in lines for a in (first, again, other))
    site.publish(release(tmp_path, 2, favours="nv"))
    swapped = site.predict(picture(1)).json()
    assert (swapped["cached"], swapped["model_version"], swapped["verdict"]) == (
        False,
        2,
        "negative",
    )
    assert len(site.services.predictor.cache) == 1  # nothing of the old model is kept
