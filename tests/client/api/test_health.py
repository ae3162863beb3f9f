from datetime import UTC, datetime
from pathlib import Path

import pytest

from client.releases.cache import CacheStatus
from common.errors import ModelError
from tests.client.serving import RECIPE, ServedSite, picture, release

THEN = datetime(2026, 1, 2, tzinfo=UTC)


def test_live_whatever_happens(site_without_model: ServedSite) -> None:
    assert site_without_model.call("GET", "/health/live").json() == {"status": "live"}


def test_not_ready_before_the_first_release(site_without_model: ServedSite, tmp_path: Path) -> None:
    site = site_without_model
    answer = site.call("GET", "/health/ready")
    assert (answer.status_code, answer.json()["status"]) == (503, "no-model")
    assert "retry-after" in answer.headers
    assert site.call("GET", "/model").status_code == 503
    site.publish(release(tmp_path, 1))
    answer = site.call("GET", "/health/ready")
    assert (answer.status_code, answer.json()["model_version"]) == (200, 1)


def test_an_outage_is_an_alarm_and_the_site_goes_on(site: ServedSite) -> None:
    now = datetime.now(UTC)
    site.releases.status = CacheStatus(1, now, THEN, "coordinator-unreachable", "No answer.")
    answer = site.call("GET", "/health/ready")
    assert answer.status_code == 200
    (alarm,) = answer.json()["alarms"]
    assert (alarm["code"], alarm["message"]) == ("coordinator-unreachable", "No answer.")
    metrics = site.call("GET", "/metrics").text
    assert 'wardround_site_release_alarm{code="coordinator-unreachable"} 1.0' in metrics
    page = site.call("GET", "/").text
    assert "No answer." in page


def test_a_release_that_does_not_load_is_seen_everywhere(
    site: ServedSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unloadable(_self: object) -> object:
        raise ModelError("<b>Unloadable</b>.", code="model-mismatch")

    bad = release(tmp_path, 2)
    with monkeypatch.context() as patch:
        patch.setattr(type(bad), "load", unloadable)
        site.publish(bad)
    (alarm,) = site.call("GET", "/health/ready").json()["alarms"]
    assert alarm["code"] == "model-mismatch"
    metrics = site.call("GET", "/metrics").text
    assert 'wardround_site_release_alarm{code="model-mismatch"} 1.0' in metrics
    assert "wardround_site_model_load_failures_total 1.0" in metrics
    page = site.call("GET", "/").text
    assert "&lt;b&gt;Unloadable&lt;/b&gt;" in page
    assert "<b>Unloadable" not in page
    assert site.predict(picture()).json()["model_version"] == 1


def test_model_describes_what_answers(site: ServedSite) -> None:
    body = site.call("GET", "/model").json()
    assert (body["version"], body["task"], body["architecture"]) == (1, "dermoscopy", "test_resnet")
    assert tuple(body["classes"]) == RECIPE.classes
    assert body["digest"] == site.services.holder.require().digest


def test_metrics_count_by_template(site: ServedSite) -> None:
    site.predict(picture())
    case_id = site.store(picture()).json()["case_id"]
    site.call("POST", f"/cases/{case_id}/confirm", json={"label": "nv"})
    site.call("GET", f"/{case_id}")
    answer = site.call("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    text = answer.text
    labels = 'method="POST",route="/cases/{case_id}/confirm",status="200"'
    assert f"wardround_site_requests_total{{{labels}}} 1.0" in text
    assert 'route="other",status="404"' in text
    assert 'wardround_site_predictions_total{version="1"} 1.0' in text
    digest = site.services.holder.require().digest
    labels = f'digest="{digest}",runtime="torch",task="dermoscopy",version="1"'
    info = f"wardround_site_model_info{{{labels}}} 1.0"
    assert info in text
    assert "wardround_site_batch_images_count 1.0" in text
    assert case_id not in text


def test_openapi_describes_the_uploads(site: ServedSite) -> None:
    paths = site.call("GET", "/openapi.json").json()["paths"]
    body = paths["/cases"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(body["properties"]) == {"image", "patient_id", "label", "age", "sex"}
    assert "/docs" not in paths
    assert site.call("GET", "/docs").status_code == 404
