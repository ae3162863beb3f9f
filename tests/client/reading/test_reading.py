from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.inference.outputs import Outputs
from client.monitoring.input_statistics import IMAGE_STATISTICS
from client.reading.image_quality import ImageFacts
from client.reading.ordinary import distance, fit_ordinary
from client.reading.parts import Conformal, Interval, SiteOperatingPoint
from client.reading.profile import SiteProfile
from client.reading.reading import REFER_REASONS, Reading, read
from client.reading.settings import ReadingSettings
from common.recipe import DecisionSpec
from common.release import ReleaseManifest
from tests.client.reading.holdouts import D, K, fake_engine, holdout
from tests.client.serving import RECIPE

SETTINGS = ReadingSettings()
PLAIN = ImageFacts("0" * 64, 128, 128, tuple(0.5 for _ in IMAGE_STATISTICS))
BLANK = ImageFacts("0" * 64, 128, 128, tuple(0.0 for _ in IMAGE_STATISTICS))
POSITIVE = [name in RECIPE.decision.positive_classes for name in RECIPE.classes]


def output(probabilities: Any, *, members: Any = None) -> Outputs:
    rows = np.asarray(probabilities, np.float64)[None]
    features = np.zeros((1, D), np.float32)
    with np.errstate(divide="ignore"):
        logits = np.log(rows)
    return Outputs(logits, rows, features, None if members is None else np.asarray(members)[None])


def profile(manifest: ReleaseManifest, **parts: Any) -> SiteProfile:
    return SiteProfile(
        model_digest=manifest.model_digest,
        recipe_digest=manifest.recipe.digest,
        settings_digest=SETTINGS.digest,
        holdout_digest="1" * 64,
        holdout_patients=100,
        made_at=datetime(2026, 11, 21, tzinfo=UTC),
        **parts,
    )


def reading(
    manifest: ReleaseManifest,
    probabilities: Any,
    *,
    facts: ImageFacts = PLAIN,
    members: Any = None,
    settings: ReadingSettings = SETTINGS,
    threshold: float | None = None,
    **parts: Any,
) -> Reading:
    engine = fake_engine(manifest, threshold=threshold)
    made = profile(manifest, **parts) if parts else None
    return read(output(probabilities, members=members), facts, engine, settings, profile=made)


def even() -> tuple[float, ...]:
    return (1 / K,) * K


def sure_of(name: str) -> tuple[float, ...]:
    return tuple(0.94 if c == name else 0.01 for c in RECIPE.classes)


def conformal(quantile: float | None, method: str = "lac") -> Conformal:
    return Conformal(
        method=method,  # type: ignore[arg-type]
        by_class=False,
        coverage=0.9,
        quantiles=(quantile,) * K,
    )


def test_without_a_profile_it_is_the_release_and_says_so(manifest: ReleaseManifest) -> None:
    found = reading(manifest, sure_of("mel"))
    assert found.probabilities == sure_of("mel")
    assert (found.calibrated, found.threshold_source, found.verdict) == (
        *(False, "release", "positive"),
    )
    assert found.threshold == manifest.threshold
    assert found.uncertainty is not None
    assert (found.prediction_set, found.coverage, found.profile_digest) == (None, None, None)
    assert (found.refer, found.refer_reasons, found.warnings) == (False, (), ())


def test_the_threshold_itself_is_positive(manifest: ReleaseManifest) -> None:
    total = reading(manifest, even()).positive_probability
    assert total == pytest.approx(sum(POSITIVE) / K)
    assert reading(manifest, even(), threshold=total).verdict == "positive"
    above = float(np.nextafter(total, 1))
    assert reading(manifest, even(), threshold=above).verdict == "negative"


def test_only_the_positive_classes_count(manifest: ReleaseManifest) -> None:
    recipe = RECIPE.model_copy(update={"decision": DecisionSpec(positive_classes=("vasc",))})
    vascular = manifest.model_copy(update={"recipe": recipe})
    rows = tuple(0.4 if c == "vasc" else 0.1 for c in RECIPE.classes)
    assert reading(vascular, rows).positive_probability == pytest.approx(0.4)


@given(st.lists(st.floats(0, 100), min_size=K, max_size=K).filter(lambda v: sum(v) > 0))
def test_rounding_never_leads_above_one(manifest: ReleaseManifest, weights: list[float]) -> None:
    total = sum(weights)
    found = reading(manifest, [weight / total for weight in weights])
    assert 0 <= found.positive_probability <= 1


@given(
    st.lists(st.floats(-8, 8), min_size=K, max_size=K), st.floats(0.2, 10), st.floats(0.01, 0.99)
)
def test_a_temperature_changes_no_verdict(
    manifest: ReleaseManifest, logits: list[float], heat: float, threshold: float
) -> None:
    odds = np.exp(logits) / np.exp(logits).sum()
    plain = reading(manifest, odds, threshold=threshold)
    found = reading(manifest, odds, threshold=threshold, temperature=heat)
    assert (found.verdict, found.positive_probability) == (
        *(plain.verdict, plain.positive_probability),
    )
    assert found.calibrated
    assert sum(found.probabilities) == pytest.approx(1)
    expected = np.exp(np.array(logits) / heat) / np.exp(np.array(logits) / heat).sum()
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-9)


def test_the_sites_own_threshold_takes_the_releases_place(manifest: ReleaseManifest) -> None:
    rate = Interval(value=0.95, low=0.9, high=0.98, patients=60)
    point = SiteOperatingPoint(
        threshold=0.05, wanted_sensitivity=0.95, sensitivity=rate, specificity=None
    )
    doubtful = tuple(0.06 if c == "mel" else 0.94 * (c == "nv") for c in RECIPE.classes)
    assert reading(manifest, doubtful).verdict == "negative"
    found = reading(manifest, doubtful, operating_point=point)
    assert (found.verdict, found.threshold, found.threshold_source) == ("positive", 0.05, "site")


def test_a_set_that_leaves_the_verdict_open_goes_to_a_human(manifest: ReleaseManifest) -> None:
    both = tuple({"mel": 0.5, "nv": 0.48}.get(c, 0.004) for c in RECIPE.classes)
    found = reading(manifest, both, conformal=conformal(0.6))
    assert found.prediction_set is not None
    assert set(found.prediction_set) == {"mel", "nv"}
    assert (found.refer_reasons, found.coverage) == (("set-spans-verdict",), 0.9)
    sure = reading(manifest, sure_of("nv"), conformal=conformal(0.6))
    assert (sure.prediction_set, sure.refer) == (("nv",), False)


def test_a_negative_verdict_over_positive_classes_alone_goes_to_a_human(
    manifest: ReleaseManifest,
) -> None:
    likely = tuple({"mel": 0.7, "nv": 0.3}.get(c, 0.0) for c in RECIPE.classes)
    found = reading(manifest, likely, conformal=conformal(0.5), threshold=0.8)
    assert (found.verdict, found.prediction_set) == ("negative", ("mel",))
    assert found.refer_reasons == ("set-against-negative",)
    assert not reading(manifest, likely, conformal=conformal(0.5), threshold=0.6).refer
    low = reading(manifest, sure_of("nv"), conformal=conformal(0.6), threshold=0.0)
    assert (low.verdict, low.prediction_set, low.refer) == ("positive", ("nv",), False)


def test_an_empty_set_and_a_large_one_go_to_a_human(manifest: ReleaseManifest) -> None:
    empty = reading(manifest, even(), conformal=conformal(0.2))
    assert (empty.prediction_set, empty.refer_reasons) == ((), ("set-empty",))
    benign = [c for c, positive in zip(RECIPE.classes, POSITIVE, strict=True) if not positive]
    rows = tuple(1 / len(benign) if c in benign else 0.0 for c in RECIPE.classes)
    strict = ReadingSettings(largest_set=len(benign) - 1)
    large = reading(manifest, rows, conformal=conformal(0.9), settings=strict)
    assert large.refer_reasons == ("set-large",)
    lax = ReadingSettings(largest_set=len(benign))
    assert not reading(manifest, rows, conformal=conformal(0.9), settings=lax).refer


def test_models_that_disagree_go_to_a_human_above_the_limit(manifest: ReleaseManifest) -> None:
    apart = np.array([sure_of("mel"), sure_of("nv")])
    found = reading(manifest, apart.mean(0), members=apart, uncertainty_limit=0.2)
    assert found.uncertainty is not None
    assert found.uncertainty > 0.2
    assert found.refer_reasons == ("uncertain",)
    alike = np.array([sure_of("mel"), sure_of("mel")])
    agreed = reading(manifest, alike.mean(0), members=alike, uncertainty_limit=0.2)
    assert (agreed.uncertainty, agreed.refer) == (pytest.approx(0), False)
    without = reading(manifest, apart.mean(0), members=apart)
    assert not without.refer, "no limit, no referral: nothing is invented"


def test_what_is_not_of_this_kind_goes_to_a_human(manifest: ReleaseManifest) -> None:
    found = reading(manifest, sure_of("nv"), facts=BLANK)
    assert [w.code for w in found.warnings] == ["image-blank"]
    assert found.refer_reasons == ("not-of-this-kind",)
    scores = holdout(60, images=1)
    ordinary = fit_ordinary(scores.features + 30, np.arange(60), false_alarms=0.05)
    assert distance(np.zeros((1, D), np.float32), ordinary)[0] > ordinary.limit
    unlike = reading(manifest, sure_of("nv"), out_of_distribution=ordinary)
    assert [w.code for w in unlike.warnings] == ["out-of-distribution"]
    assert unlike.refer


def test_a_network_without_a_linear_end_has_no_uncertainty(manifest: ReleaseManifest) -> None:
    engine = fake_engine(manifest, dropout=None)
    found = read(output(even()), PLAIN, engine, SETTINGS, profile=None)
    assert found.uncertainty is None


def test_probabilities_of_nought_are_read(manifest: ReleaseManifest) -> None:
    rows = tuple(float(c == "mel") for c in RECIPE.classes)
    found = reading(manifest, rows, temperature=3.0, conformal=conformal(0.1, "aps"))
    assert found.prediction_set == ("mel",)
    assert np.isfinite(found.probabilities).all()


def test_every_reason_has_words(manifest: ReleaseManifest) -> None:
    assert set(REFER_REASONS) == {
        *("uncertain", "set-empty", "set-spans-verdict", "set-against-negative", "set-large"),
        "not-of-this-kind",
    }
