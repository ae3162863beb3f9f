"""``POST /explain`` and ``POST /similar``: what they say, refuse, and leave alone."""

from __future__ import annotations

import base64
import json
import logging
import threading
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from client.cases.tables import AUDIT
from client.explanation.budget import Budget
from client.explanation.methods import Method
from client.inference.engine import InferenceEngine
from common.imaging import decode
from tests.client.dicom.files import PLANTED, dataset, file_bytes, planted
from tests.client.serving import RECIPE, ServedSite, picture, release


def test_an_answer_is_explained_on_the_image_and_in_words(site: ServedSite) -> None:
    image = picture(1, size=(90, 50))
    answer = site.call("POST", "/explain", files={"image": ("x.png", image)})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    served = site.services.holder.require()
    assert (body["method"], body["class"]) == ("grad-cam", "mel")
    assert (body["model_version"], body["model_digest"]) == (1, served.digest)
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["probability"] == pytest.approx(site.predict(image).json()["probabilities"]["mel"])
    drawn = decode(base64.b64decode(body["overlay_png"]))
    assert drawn.shape[1] / drawn.shape[0] == pytest.approx(90 / 50, rel=0.02)
    shares = sum(found["share"] for found in body["region_shares"])
    assert shares == pytest.approx(1, abs=1e-3) or not body["region_shares"]
    assert "mel" in body["regions"]


@pytest.mark.parametrize("method", Method)
def test_any_class_by_any_method(site: ServedSite, method: Method) -> None:
    fields = {"method": method.value, "class": "nv"}
    answer = site.call("POST", "/explain", files={"image": ("x", picture())}, data=fields)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["method"], answer.json()["class"]) == (method.value, "nv")


def test_a_negative_verdict_is_explained_by_the_likeliest_class(
    site: ServedSite, tmp_path: Path
) -> None:
    site.publish(release(tmp_path, 2, favours="nv"))
    body = site.call("POST", "/explain", files={"image": ("x", picture())}).json()
    assert (body["model_version"], body["class"]) == (2, "nv")


def test_the_picture_alone_where_it_is_asked_for(site: ServedSite) -> None:
    files = {"image": ("x", picture())}
    answer = site.call("POST", "/explain", files=files, headers={"accept": "image/png"})
    assert answer.headers["content-type"] == "image/png"
    assert decode(answer.content).shape[2] == 3
    both = site.call("POST", "/explain", files=files, headers={"accept": "*/*"})
    assert both.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"method": "tea-leaves"}, 422, "request-invalid"),
        ({"class": "PlantedDoe"}, 422, "class-unknown"),
        ({"patient": "x"}, 422, "request-invalid"),
    ],
)
def test_what_is_not_understood_is_refused(
    site: ServedSite, fields: dict[str, str], status: int, code: str
) -> None:
    answer = site.call("POST", "/explain", files={"image": ("x", picture())}, data=fields)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert "Planted" not in answer.text


def test_no_image_no_model(site: ServedSite, site_without_model: ServedSite) -> None:
    answer = site.call("POST", "/explain", files={"image": ("x", b"no image at all")})
    assert answer.status_code == 415
    for path in ("/explain", "/similar"):
        away = site_without_model.call("POST", path, files={"image": ("x", picture())})
        assert (away.status_code, away.json()["code"]) == (503, "no-model")


def test_predictions_go_on_while_explanations_wait(site: ServedSite) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(budget: Budget) -> str:
        begun.set()
        while not go_on.wait(0.01):
            budget.check()
        return "x"

    pool = site.services.explanations._quick
    queue = site.services.settings.explanation.queue
    first = pool.submit(slow)
    assert begun.wait(10)
    waiting = [pool.submit(slow) for _ in range(queue)]
    busy = site.call("POST", "/explain", files={"image": ("x", picture())})
    assert (busy.status_code, busy.json()["code"]) == (429, "busy")
    assert int(busy.headers["retry-after"]) > 0
    assert site.predict(picture()).status_code == 200
    fields = {"method": "lime"}  # has a thread of its own
    assert site.call("POST", "/explain", files={"image": ("x", picture())}, data=fields).is_success
    go_on.set()
    assert [f.result(10) for f in (first, *waiting)] == ["x"] * (queue + 1)


def test_explaining_does_not_change_what_others_are_answered(site: ServedSite) -> None:
    """Hooks and gradients of one thread, predictions in others, on the same weights."""
    engine = site.services.holder.require()
    images = [decode(picture(n, size=(32, 32)))[None] for n in range(4)]
    expected = [engine.probabilities(image) for image in images]
    wrong: list[int] = []
    done = threading.Event()

    def ask(number: int) -> None:
        while not done.is_set():
            if not np.array_equal(engine.probabilities(images[number]), expected[number]):
                wrong.append(number)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for method in (Method.grad_cam, Method.integrated_gradients, Method.grad_cam):
        site.services.explanations.explain(engine, picture(), method=method).result(60)
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert not any(m._forward_hooks for m in engine.network.modules())


def test_a_swapped_out_model_is_let_go(site: ServedSite, tmp_path: Path) -> None:
    import gc
    import weakref

    site.call("POST", "/explain", files={"image": ("x", picture())})
    old = weakref.ref(site.services.holder.require())
    site.publish(release(tmp_path, 2))
    gc.collect()
    assert old() is None


def test_dicom_is_explained_and_nothing_of_it_is_said(
    site: ServedSite, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    pixels = np.random.default_rng(2).integers(0, 256, (32, 32, 3), np.uint8)
    file = file_bytes(planted(dataset(pixels)))
    answer = site.call("POST", "/explain", files={"image": ("PlantedDoe.dcm", file)})
    assert answer.status_code == 200
    png = base64.b64decode(answer.json()["overlay_png"])
    for word in PLANTED:
        assert word not in caplog.text + answer.text
        assert word.encode() not in png


def test_an_explanation_is_in_the_audit_log(site: ServedSite) -> None:
    answer = site.call("POST", "/explain", files={"image": ("x", picture())})
    with site.services.store._engine.connect() as database:
        rows = database.execute(select(AUDIT.c.body)).scalars().all()
    said = [json.loads(row) for row in rows]
    assert answer.json()["request_id"] in {entry.get("request_id") for entry in said}


def test_similar_cases_are_named_with_their_labels(site: ServedSite) -> None:
    for number, label in enumerate(("mel", "nv", "mel")):
        site.store(picture(10 + number), label=label, patient_id=str(number))
    site.store(picture(20))  # waits
    similar = site.services.explanations._similar
    assert similar.update()
    answer = site.call("POST", "/similar", files={"image": ("x", picture(11))})
    body = answer.json()
    assert (answer.status_code, body["compared"], body["confirmed"]) == (200, 3, 3)
    assert len(body["cases"]) == 2  # the image itself is left out
    assert [c["distance"] for c in body["cases"]] == sorted(c["distance"] for c in body["cases"])
    assert {c["label"] for c in body["cases"]} <= set(RECIPE.classes)
    site.services.store.withdraw_case(body["cases"][0]["case_id"])
    again = site.call("POST", "/similar", files={"image": ("x", picture(11))}).json()
    assert [c["case_id"] for c in again["cases"]] == [body["cases"][1]["case_id"]]


def test_an_engine_without_features_of_this_model_compares_nothing(
    site: ServedSite, tmp_path: Path
) -> None:
    site.store(picture(10), label="mel")
    site.services.explanations._similar.update()
    site.publish(release(tmp_path, 2))
    body = site.call("POST", "/similar", files={"image": ("x", picture(11))}).json()
    assert (body["model_version"], body["compared"], body["cases"]) == (2, 0, [])
    assert isinstance(site.services.holder.require(), InferenceEngine)
