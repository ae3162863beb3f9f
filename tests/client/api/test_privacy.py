"""A planted patient: their name, number and label with it must never turn up anywhere."""

import logging

import pytest

from tests.client.serving import ServedSite, picture

NAME, NUMBER = "Jane-Planted-Doe", "MRN-90125-planted"


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # the calling side, which is the test's
    return caplog


def test_a_planted_patient_turns_up_nowhere(
    site: ServedSite, everything_logged: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    def files(image: bytes) -> dict[str, tuple[str, bytes]]:
        return {"image": (f"{NAME}.png", image)}

    person = {"patient_id": NUMBER, "label": "mel"}
    query = {"name": NAME}
    answers = [
        site.call("POST", "/predict", files=files(picture()), params=query),
        site.call("POST", "/cases", files=files(picture()), data=person),
        site.call("POST", "/cases", files=files(picture()), data={**person, "label": "nv"}),
        site.call("POST", "/cases", files=files(picture()), data={"patient_id": f"{NUMBER}-2"}),
        site.call("POST", "/cases", files=files(b"no image"), data=person),
        site.call("POST", "/cases", files=files(picture(9)), data={"patient_id": NUMBER * 20}),
        site.call("POST", "/cases", files=files(picture(9)), data={**person, "age": NAME}),
        site.call("POST", "/cases", files=files(picture(9)), data={**person, "label": NAME}),
        site.call("POST", f"/cases/{'0' * 32}/confirm", json={"label": NAME}),
        site.call("POST", f"/cases/{'0' * 32}/confirm", json={"label": {"x": NAME}}),
        site.call("POST", f"/cases/{NAME}!/confirm", json={"label": "nv"}),
        site.call("GET", f"/{NAME}"),
        site.call("GET", "/cases"),
        site.call("GET", "/metrics"),
        site.call("GET", "/"),
        site.call("GET", "/health/ready", headers={"X-Request-ID": NAME}),
        site.call("GET", "/health/live", headers={"X-Correlation-ID": NAME, "traceparent": NAME}),
        site.call("GET", "/model", headers={"Idempotency-Key": NAME}),
    ]
    assert {a.status_code for a in answers} >= {200, 201, 404, 409, 415, 422}
    captured = capfd.readouterr()
    seen = [everything_logged.text, captured.out, captured.err]
    seen += [a.text + str(a.headers) for a in answers]
    for text in seen:
        assert NAME not in text
        assert NUMBER not in text
    assert everything_logged.text.count("event=request ") == len(answers)
    ours = [r.getMessage() for r in everything_logged.records if r.name.startswith("client")]
    assert not [line for line in ours if "=mel" in line or "=nv" in line]


def test_a_failure_quotes_nothing(
    site: ServedSite,
    everything_logged: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_args: object, **_fields: object) -> object:
        raise RuntimeError(f"could not insert {NUMBER}")

    monkeypatch.setattr(type(site.services.store), "add_new", broken)
    answer = site.store(picture(), patient_id=NUMBER)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert answer.headers["x-request-id"] in everything_logged.text
    assert "RuntimeError" in everything_logged.text
    assert NUMBER not in everything_logged.text + answer.text
