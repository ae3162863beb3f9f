"""What an answer says over HTTP, with a profile of the site and without."""

import io
from datetime import UTC, datetime
from typing import Any

import pytest
from PIL import Image

from client.audit import open_site_audit
from client.inference.engine import InferenceEngine
from client.reading.parts import Conformal, Interval, Missing, SiteOperatingPoint
from client.reading.profile import SiteProfile
from client.reading.reading import REFER_REASONS
from client.reading.settings import ReadingSettings
from common.audit_entries import PredictionMade
from tests.client.serving import RECIPE, ServedSite, picture

K = len(RECIPE.classes)
RATE = Interval(value=0.95, low=0.9, high=0.98, patients=60)


def profile(engine: InferenceEngine, **parts: Any) -> SiteProfile:
    return SiteProfile(
        model_digest=engine.digest,
        recipe_digest=engine.recipe.digest,
        settings_digest=ReadingSettings().digest,
        holdout_digest="1" * 64,
        holdout_patients=100,
        made_at=datetime(2026, 11, 21, tzinfo=UTC),
        missing=(Missing(part="drift", why="no reason"),),
        **parts,
    )


@pytest.fixture
def engine(site: ServedSite) -> InferenceEngine:
    """What answers, with a profile that nobody but the test changes."""
    site.services.releases.profiles.stop()
    served = site.services.holder.require()
    served.profile = None
    return served


def test_without_a_profile_an_answer_says_so(site: ServedSite, engine: InferenceEngine) -> None:
    assert engine.profile is None
    body = site.predict(picture()).json()
    assert (body["calibrated"], body["calibrated_probabilities"]) == (False, None)
    assert (body["threshold_source"], body["threshold"]) == ("release", RECIPE.decision.threshold)
    assert (body["prediction_set"], body["coverage"], body["profile_digest"]) == (None,) * 3
    assert 0 <= body["uncertainty"] <= 1
    assert (body["refer"], body["refer_reasons"], body["together_with"]) == (False, [], [])
    assert site.call("GET", "/model").json()["profile"] is None


def test_an_answer_says_all_that_the_profile_knows_and_the_audit_log_which(
    site: ServedSite, engine: InferenceEngine
) -> None:
    made = profile(
        engine,
        temperature=20.0,
        operating_point=SiteOperatingPoint(
            threshold=0.999, wanted_sensitivity=0.95, sensitivity=RATE, specificity=None
        ),
        conformal=Conformal(method="lac", by_class=False, coverage=0.9, quantiles=(None,) * K),
        uncertainty_limit=0.0,
    )
    plain = site.predict(picture(1)).json()
    engine.profile = made
    body = site.predict(picture(1)).json()
    assert body["probabilities"] == plain["probabilities"]
    assert body["calibrated"]
    assert sum(body["calibrated_probabilities"].values()) == pytest.approx(1)
    assert max(body["calibrated_probabilities"].values()) < max(body["probabilities"].values())
    assert (body["threshold"], body["threshold_source"]) == (0.999, "site")
    assert body["prediction_set"] == list(RECIPE.classes)
    assert set(body["refer_reasons"]) <= set(REFER_REASONS)
    assert "set-spans-verdict" in body["refer_reasons"]
    assert body["refer"]
    assert body["profile_digest"] == made.digest
    with open_site_audit(site.services.settings) as audit:
        entries = [line.entry() for line in audit.lines(kinds=("prediction",))]
    told = [e.profile_digest for e in entries if isinstance(e, PredictionMade)]
    assert told == [None, made.digest]
    shown = site.call("GET", "/model").json()["profile"]
    assert (shown["digest"], shown["coverage"]) == (made.digest, 0.9)
    assert shown["missing"] == [{"part": "drift", "why": "no reason"}]


def test_a_blank_image_is_answered_and_referred(site: ServedSite) -> None:
    target = io.BytesIO()
    Image.new("RGB", (64, 64), (90, 80, 70)).save(target, "PNG")
    body = site.predict(target.getvalue()).json()
    assert [w["code"] for w in body["warnings"]] == ["image-blank"]
    assert body["refer_reasons"] == ["not-of-this-kind"]


def test_the_fhir_answer_says_who_should_decide(site: ServedSite, engine: InferenceEngine) -> None:
    engine.profile = profile(
        engine,
        conformal=Conformal(method="lac", by_class=False, coverage=0.9, quantiles=(None,) * K),
    )
    answer = site.call("POST", "/predict/fhir", files={"image": ("x.png", picture())})
    reports = [
        entry["resource"]
        for entry in answer.json()["entry"]
        if entry["resource"]["resourceType"] == "DiagnosticReport"
    ]
    assert "A person should decide: set-spans-verdict." in reports[0]["conclusion"]
