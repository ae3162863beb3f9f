"""Open Inference Protocol v2, held to the objects of the specification's REST part."""

from __future__ import annotations

import base64
import json
from typing import Any

import jsonschema
import numpy as np
import pytest

from client.api.protocol_v2_documents import InferenceRequest
from client.api.protocol_v2_tensors import MAXIMUM_IMAGES, refuse_crowded
from client.inference.asking import prepare_upload
from tests.client.serving import RECIPE, LocalRelease, ServedSite, picture, release

TENSOR_DATA = {
    "type": "array",
    "items": {"anyOf": [{"$ref": "#/$defs/data"}, {"type": ["number", "string", "boolean"]}]},
}
TENSOR = {
    "type": "object",
    "required": ["name", "shape", "datatype", "data"],
    "properties": {
        "name": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "datatype": {"enum": ["BOOL", "UINT8", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES"]},
        "parameters": {
            "type": "object",
            "additionalProperties": {"type": ["string", "number", "boolean"]},
        },
        "data": {"$ref": "#/$defs/data"},
    },
}
METADATA_TENSOR = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {"shape": {"type": "array", "items": {"type": "integer"}}},
}
OBJECTS: dict[str, dict[str, Any]] = {
    "response": {
        "type": "object",
        "required": ["model_name", "outputs"],
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {"type": "array", "items": TENSOR},
        },
        "$defs": {"data": TENSOR_DATA},
    },
    "model": {
        "type": "object",
        "required": ["name", "platform", "inputs", "outputs"],
        "properties": {
            "versions": {"type": "array", "items": {"type": "string"}},
            "inputs": {"type": "array", "items": METADATA_TENSOR},
            "outputs": {"type": "array", "items": METADATA_TENSOR},
        },
    },
    "server": {
        "type": "object",
        "required": ["name", "version", "extensions"],
        "properties": {"extensions": {"type": "array", "items": {"type": "string"}}},
    },
    "error": {
        "type": "object",
        "required": ["error"],
        "properties": {"error": {"type": "string", "minLength": 1}},
        "additionalProperties": False,
    },
}
MODEL = f"/v2/models/{RECIPE.name}"


def held(answer: Any, kind: str) -> Any:
    document = answer.json()
    jsonschema.validate(document, OBJECTS[kind])
    return document


def image_input(*images: bytes) -> dict[str, Any]:
    data = [base64.b64encode(image).decode() for image in images]
    return {"name": "image", "shape": [len(data)], "datatype": "BYTES", "data": data}


def infer(site: ServedSite, *inputs: dict[str, Any], path: str = MODEL, **further: Any) -> Any:
    return site.call("POST", f"{path}/infer", json={"inputs": list(inputs), **further})


def test_health_and_metadata(site: ServedSite) -> None:
    assert site.call("GET", "/v2/health/live").json() == {"live": True}
    assert site.call("GET", "/v2/health/ready").json() == {"live": True, "ready": True}
    assert held(site.call("GET", "/v2"), "server")["name"] == "wardround"
    found = held(site.call("GET", MODEL), "model")
    assert (found["name"], found["versions"]) == (RECIPE.name, ["1"])
    assert held(site.call("GET", f"{MODEL}/versions/1"), "model") == found
    for path in (MODEL, f"{MODEL}/versions/1"):
        ready = site.call("GET", f"{path}/ready").json()
        assert ready == {"name": RECIPE.name, "ready": True}


def test_without_a_model_nothing_is_ready(site_without_model: ServedSite) -> None:
    assert site_without_model.call("GET", "/v2/health/live").status_code == 200
    assert site_without_model.call("GET", "/v2/health/ready").status_code == 503
    for path in (MODEL, f"{MODEL}/ready"):
        answer = site_without_model.call("GET", path)
        assert answer.status_code == 503
        held(answer, "error")


def test_images_are_answered_as_predict_answers_them(site: ServedSite) -> None:
    answer = infer(site, image_input(picture(1), picture(2)), id="42")
    found = held(answer, "response")
    assert (found["model_name"], found["model_version"], found["id"]) == (RECIPE.name, "1", "42")
    tensors = {output["name"]: output for output in found["outputs"]}
    assert list(tensors) == ["probabilities", "positive_probability", "verdict"]
    assert tensors["probabilities"]["shape"] == [2, len(RECIPE.classes)]
    assert tensors["probabilities"]["datatype"] == "FP32"
    classes = tensors["probabilities"]["parameters"]["classes"].split(",")
    rows = np.reshape(tensors["probabilities"]["data"], (2, -1))
    for row, seed in zip(rows, (1, 2), strict=True):
        single = site.predict(picture(seed)).json()
        assert dict(zip(classes, row, strict=True)) == pytest.approx(
            single["probabilities"], abs=1e-4
        )
    assert tensors["verdict"]["data"] == ["positive", "positive"]


def test_prepared_pixels_are_answered_alike(site: ServedSite) -> None:
    _, pixels = prepare_upload(picture(3), RECIPE.image)
    size = RECIPE.image.size
    flat = {
        "name": "pixels",
        "shape": [1, size, size, 3],
        "datatype": "UINT8",
        "data": pixels.ravel().tolist(),
    }
    nested = flat | {"data": [pixels.tolist()]}
    wanted = [{"name": "probabilities"}]
    first = held(infer(site, flat, outputs=wanted), "response")
    again = held(infer(site, nested, outputs=wanted), "response")
    files = held(infer(site, image_input(picture(3)), outputs=wanted), "response")
    assert "id" not in first
    assert [output["name"] for output in first["outputs"]] == ["probabilities"]
    for other in (again, files):
        assert other["outputs"][0]["data"] == pytest.approx(first["outputs"][0]["data"], abs=1e-4)


def pixels_input(shape: list[int], data: object) -> dict[str, Any]:
    return {"name": "pixels", "shape": shape, "datatype": "UINT8", "data": data}


SIDE = RECIPE.image.size
WRONG: dict[str, Any] = {
    "no inputs": {},
    "empty inputs": {"inputs": []},
    "two inputs": {"inputs": [image_input(picture()), image_input(picture())]},
    "unknown input": {"inputs": [image_input(picture()) | {"name": "x"}]},
    "wrong type": {"inputs": [image_input(picture()) | {"datatype": "FP32"}]},
    "wrong shape": {"inputs": [image_input(picture()) | {"shape": [2]}]},
    "huge shape": {"inputs": [pixels_input([2**62, SIDE, SIDE, 3], [1])]},
    "no base64": {"inputs": [image_input(picture()) | {"data": ["!!!"]}]},
    "numbers as images": {"inputs": [image_input(picture()) | {"data": [1]}]},
    "empty image": {"inputs": [image_input(b"")]},
    "too many": {"inputs": [image_input(*[picture()] * 17)]},
    "none": {"inputs": [image_input()]},
    "unknown output": {"inputs": [image_input(picture())], "outputs": [{"name": "gradients"}]},
    "pixels of another size": {"inputs": [pixels_input([1, 8, 8, 3], [0] * 192)]},
    "too few pixels": {"inputs": [pixels_input([1, SIDE, SIDE, 3], [0, 1])]},
    "pixels out of range": {"inputs": [pixels_input([1, SIDE, SIDE, 3], [256] * SIDE * SIDE * 3)]},
    "fractions": {"inputs": [pixels_input([1, SIDE, SIDE, 3], [0.5] * SIDE * SIDE * 3)]},
    "ragged": {"inputs": [pixels_input([1, SIDE, SIDE, 3], [[1], [2, 3]])]},
    "huge integer": {"inputs": [pixels_input([1, SIDE, SIDE, 3], [10**40])]},
    "objects": {"inputs": [pixels_input([1, SIDE, SIDE, 3], [{}])]},
    "long id": {"inputs": [image_input(picture())], "id": "x" * 300},
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_requests_are_the_protocols_errors(site: ServedSite, name: str) -> None:
    answer = site.call("POST", f"{MODEL}/infer", json=WRONG[name])
    assert answer.status_code == 400, answer.text
    held(answer, "error")


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 500, b"\xff\xfe", b"null", b"NaN"])
def test_what_is_no_json_is_refused(site: ServedSite, body: bytes) -> None:
    answer = site.call("POST", f"{MODEL}/infer", content=body)
    assert answer.status_code == 400
    held(answer, "error")


def test_an_unreadable_image_and_an_oversize_body(site: ServedSite) -> None:
    answer = infer(site, image_input(b"not an image"))
    assert answer.status_code == 400
    held(answer, "error")
    large = json.dumps({"inputs": [image_input(bytes(400_000))]}).encode()
    answer = site.call("POST", f"{MODEL}/infer", content=large)
    assert answer.status_code == 413
    held(answer, "error")
    assert site.services.admission.admitted == 0


@pytest.mark.parametrize("crowd", [b"[],", b"0,", b"{},", b"[[[]]],"])
def test_a_body_that_would_become_a_thousand_times_as_much_is_not_read(
    site: ServedSite, monkeypatch: pytest.MonkeyPatch, crowd: bytes
) -> None:
    def read(_body: bytes) -> None:
        raise AssertionError("it was read")

    monkeypatch.setattr(InferenceRequest, "read", read)
    body = b'{"inputs":[{"name":"pixels","data":[' + crowd * (120_000 // len(crowd)) + b"0]}]}"
    answer = site.call("POST", f"{MODEL}/infer", content=body)
    assert answer.status_code == 413
    held(answer, "error")


@pytest.mark.parametrize("nested", [False, True])
def test_the_most_images_are_read_flat_or_nested(nested: bool) -> None:
    size = 32
    pixels = np.zeros((MAXIMUM_IMAGES, size, size, 3), np.uint8)
    data = pixels.tolist() if nested else pixels.ravel().tolist()
    given = {"name": "pixels", "datatype": "UINT8", "shape": pixels.shape, "data": data}
    refuse_crowded(json.dumps({"inputs": [given]}).encode(), size)


@pytest.mark.parametrize(
    "path", ["/v2/models/other", f"{MODEL}/versions/2", f"{MODEL}/versions/2/ready", "/v2/nothing"]
)
def test_what_is_not_there_is_404(site: ServedSite, path: str) -> None:
    answer = site.call("GET", path)
    assert answer.status_code == 404
    held(answer, "error")


def test_a_version_that_is_gone_answers_nothing(site: ServedSite, melanoma: LocalRelease) -> None:
    path = f"{MODEL}/versions/1"
    assert infer(site, image_input(picture()), path=path).status_code == 200
    site.publish(release(melanoma.path.parent, 2, favours="nv"))
    answer = infer(site, image_input(picture()), path=path)
    assert answer.status_code == 404
    held(answer, "error")
    assert infer(site, image_input(picture())).json()["model_version"] == "2"


def test_each_image_takes_a_place(site: ServedSite) -> None:
    admission = site.services.admission
    admission.admitted = admission.capacity - 2
    assert infer(site, image_input(picture(1), picture(2))).status_code == 200
    answer = infer(site, image_input(picture(1), picture(2), picture(3)))
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0
    held(answer, "error")
    assert admission.admitted == admission.capacity - 2
    admission.admitted = 0
