import dataclasses
import json

import numpy as np
import pytest
from pydantic import ValidationError

from client.inference.outputs import probabilities_of
from client.reading.parts import packed
from client.reading.profile import SiteProfile, fit_profile
from client.reading.settings import ReadingSettings
from common.release import ReleaseManifest
from tests.client.reading.holdouts import K, fake_engine, holdout, linear

ALL = {
    *("temperature", "operating-point", "conformal", "uncertainty-limit"),
    *("out-of-distribution", "image-limits", "drift"),
}


def test_a_holdout_that_suffices_teaches_all(manifest: ReleaseManifest) -> None:
    settings = ReadingSettings(wanted_sensitivity=0.9)
    scores = holdout(400, heat=3.0)
    found = fit_profile(scores, fake_engine(manifest), settings)
    assert {m.part for m in found.missing} <= {"uncertainty-limit"}
    assert found.temperature == pytest.approx(3, rel=0.2)
    assert found.operating_point is not None
    assert found.operating_point.sensitivity.value >= 0.9
    assert found.conformal is not None
    assert found.drift is not None
    assert found.holdout_patients == 400
    assert found.is_of(fake_engine(manifest), settings)


def test_an_empty_and_a_small_holdout_teach_nothing_and_say_why(
    manifest: ReleaseManifest,
) -> None:
    for patients in (0, 3):
        found = fit_profile(holdout(patients), fake_engine(manifest), ReadingSettings())
        assert {m.part for m in found.missing} == ALL
        assert all(m.why for m in found.missing)
        assert (found.temperature, found.operating_point, found.conformal) == (None, None, None)
        assert (found.uncertainty_limit, found.out_of_distribution, found.drift) == (
            *(None, None, None),
        )


def test_it_survives_json_and_holds_no_case_and_no_patient(manifest: ReleaseManifest) -> None:
    scores = holdout(120, heat=2.0)
    found = fit_profile(scores, fake_engine(manifest), ReadingSettings())
    text = found.model_dump_json()
    again = SiteProfile.model_validate_json(text)
    assert again == found
    assert again.digest == found.digest
    for case in scores.cases:
        assert case.id not in text
        assert case.patient not in text
        assert case.digest not in text
    assert "inf" not in text.lower().replace("info", "")


def test_another_model_head_company_or_table_is_another_profile(
    manifest: ReleaseManifest,
) -> None:
    settings = ReadingSettings()
    found = fit_profile(holdout(10), fake_engine(manifest), settings)
    assert found.is_of(fake_engine(manifest), settings)
    assert not found.is_of(fake_engine(manifest), ReadingSettings(coverage=0.8))
    for other in ({"digest": "2" * 64}, {"head_digest": "2" * 64}, {"member_digests": ("2" * 64,)}):
        assert not found.is_of(fake_engine(manifest, **other), settings)


def test_models_together_are_calibrated_together(manifest: ReleaseManifest) -> None:
    scores = holdout(300, heat=2.0)
    other = dataclasses.replace(scores, logits=scores.logits[:, ::-1].copy())
    engine = fake_engine(manifest, members=(object(),), member_digests=("3" * 64,))
    settings = ReadingSettings(wanted_sensitivity=0.9)
    found = fit_profile(scores, engine, settings, others=[other])
    alone = fit_profile(scores, fake_engine(manifest), settings)
    assert found.members == ("3" * 64,)
    assert found.conformal is not None
    assert alone.conformal is not None
    together = (probabilities_of(scores.logits) + probabilities_of(other.logits)) / 2
    own = 1 - together[np.arange(len(scores.labels)), scores.labels]
    assert found.conformal.quantiles[0] in own
    assert found.conformal != alone.conformal


def test_members_that_were_not_scored_on_the_same_cases_teach_nothing(
    manifest: ReleaseManifest,
) -> None:
    scores, shorter = holdout(300), holdout(299)
    engine = fake_engine(manifest, members=(object(),), member_digests=("3" * 64,))
    for others in ([], [shorter]):
        found = fit_profile(scores, engine, ReadingSettings(), others=others)
        assert {m.part for m in found.missing} == ALL


def test_a_part_that_breaks_does_not_break_the_others(
    manifest: ReleaseManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a patient's name")

    monkeypatch.setattr("client.reading.fitting.fit_ordinary", broken)
    found = fit_profile(holdout(200, heat=2.0), fake_engine(manifest), ReadingSettings())
    told = {m.part: m.why for m in found.missing}
    assert "ZeroDivisionError" in told["out-of-distribution"]
    assert "name" not in told["out-of-distribution"]
    assert found.conformal is not None


def test_wrong_verdicts_are_found_by_dropout_where_it_tells_them(
    manifest: ReleaseManifest,
) -> None:
    """Verdicts are wrong near the threshold, where dropped features change the answer."""
    classifier = linear(seed=3)
    scores = holdout(600, images=1, heat=1.0, classifier=classifier)
    engine = fake_engine(manifest, classifier=classifier)
    found = fit_profile(scores, engine, ReadingSettings())
    assert engine.dropout is not None
    assert engine.dropout.probabilities(scores.features).shape[2] == K
    assert found.uncertainty_limit is not None


@pytest.mark.parametrize("damage", ["short", "text", "nan", "classes", "features"])
def test_a_damaged_profile_is_none_and_breaks_no_answer(
    manifest: ReleaseManifest, damage: str
) -> None:
    settings, engine = ReadingSettings(), fake_engine(manifest)
    document = json.loads(fit_profile(holdout(60), engine, settings).model_dump_json())
    ordinary = document["out_of_distribution"]
    if damage == "short":
        ordinary["mean"] = ordinary["mean"][:-8]
    if damage == "text":
        ordinary["directions"] = "no base64!"
    if damage == "nan":
        ordinary["mean"] = packed(np.full(ordinary["features"], np.nan))
    if damage == "classes":
        document["conformal"]["quantiles"].pop()
    if damage == "features":
        ordinary |= {"features": 1, "mean": packed(np.zeros(1)), "directions": ""}
        ordinary["variances"] = []
    try:
        profile = SiteProfile.model_validate_json(json.dumps(document))
    except ValidationError:
        assert damage in ("short", "text", "nan")
    else:
        assert not profile.is_of(engine, settings)
