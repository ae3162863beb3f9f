"""From predictions to an alarm: what a service answers is what its monitoring sees."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from PIL import Image

from client.monitoring.answer_statistics import PROJECTIONS
from client.monitoring.input_statistics import IMAGE_STATISTICS
from client.monitoring.reference import DriftReference
from client.monitoring.settings import MonitoringSettings
from client.reading.profile import SiteProfile
from client.releases.cache import LocalRelease
from client.settings import SiteSettings
from tests.client.serving import FakeReleases, ServedSite, served_site

CLASSES = 7
MONITORING = MonitoringSettings(window=60, fewest=30, refresh_minutes=1440)


@pytest.fixture
def watched(settings: SiteSettings, melanoma: LocalRelease) -> Iterator[ServedSite]:
    settings = settings.model_copy(update={"monitoring": MONITORING})
    with served_site(settings, FakeReleases(melanoma)) as served:
        yield served


def photograph(seed: int, *, light: float) -> bytes:
    generator = np.random.default_rng(seed)
    shade = generator.normal(120, 15) * light
    pixels = np.clip(generator.normal(shade, 20, (40, 48, 3)), 1, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def answered(site: ServedSite, seeds: range, *, light: float = 1.0) -> None:
    for seed in seeds:
        assert site.predict(photograph(seed, light=light)).status_code == 200


def profile_of(site: ServedSite) -> SiteProfile:
    """Make the answers so far the reference, as a holdout's scores would be."""
    engine = site.services.holder.require()
    since = datetime.now(UTC) - timedelta(hours=1)
    kept = site.services.answers.answers(engine.recipe.name, since=since)
    width = len(IMAGE_STATISTICS) + PROJECTIONS + CLASSES
    assert {len(answer.statistics) for answer in kept} == {width}
    reference = DriftReference(
        inputs=IMAGE_STATISTICS, classes=CLASSES, rows=tuple(a.statistics for a in kept)
    )
    return SiteProfile(
        model_digest=engine.digest, recipe_digest=engine.recipe.digest, settings_digest="2" * 64,
        holdout_digest="3" * 64, holdout_patients=50, made_at=datetime.now(UTC), drift=reference,
    )  # fmt: skip


def look(site: ServedSite, profile: SiteProfile) -> dict[str, int | None]:
    site.services.holder.require().profile = profile
    site.services.monitor.refresh()
    found = site.call("GET", "/monitoring").json()
    return {kind["kind"]: kind["level"] for kind in found["drift"]["kinds"]}


def test_darker_images_are_noticed_from_the_answers_alone(watched: ServedSite) -> None:
    assert watched.call("GET", "/monitoring").json()["state"] == "waiting"
    assert "wardround_site_drift{" not in watched.call("GET", "/metrics").text
    answered(watched, range(50))
    profile = profile_of(watched)
    answered(watched, range(100, 160))
    assert look(watched, profile)["inputs"] == 0
    answered(watched, range(200, 260), light=0.5)
    assert look(watched, profile)["inputs"] == 2
    (alarm,) = [
        alarm
        for alarm in watched.call("GET", "/health/ready").json()["alarms"]
        if alarm["code"] == "drift-inputs"
    ]
    assert "mean" in alarm["message"]
    text = watched.call("GET", "/metrics").text
    assert 'wardround_site_drift{kind="inputs"} 2.0' in text
    assert 'wardround_site_release_alarm{code="drift-inputs"} 1.0' in text
    assert watched.call("GET", "/health/live").status_code == 200
