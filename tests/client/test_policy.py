import contextlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.policy import SitePolicy
from common.errors import PlanRefused, PrivacyRefused, WardroundError
from common.recipe import Augmentation, DecisionSpec, ImageSpec, LossSpec, ModelSpec, Recipe
from tests.client.rounds import TOY, make_plan

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()


def test_no_file_means_no_policy(tmp_path: Path) -> None:
    with pytest.raises(PrivacyRefused) as caught:
        SitePolicy.read(tmp_path / "policy.toml")
    assert caught.value.code == "policy-missing"


@pytest.mark.parametrize(
    "text",
    [
        "epsilon_life = ",
        "unknown = 1",
        "epsilon_life = inf",
        "epsilon_campaign = nan",
        "delta = 0.5",
        "delta = 0.0",
        "min_noise_multiplier = 0.0",
        'allowed_recipes = "dermoscopy"',
        "minimum_cell = 0",
        "declared_patients = 0",
        'open_hours = "24:00-08:00"',
        'allowed_recipes = ["../secret"]',
        "rounds_per_day = -1",
        "epsilon_round = 0",
        "max_grad_norm = -1",
        "max_grad_norm = 1e-7",
    ],
)
def test_a_wrong_field_refuses_everything(tmp_path: Path, text: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(PrivacyRefused) as caught:
        SitePolicy.read(path)
    assert caught.value.code == "policy-malformed"


@given(st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes_are_read_or_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "policy.toml"
    path.write_bytes(data)
    with contextlib.suppress(PrivacyRefused):
        assert SitePolicy.read(path).epsilon_life > 0


def test_an_empty_policy_allows_nothing(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text("")
    policy = SitePolicy.read(path)
    assert policy.allowed_recipes == ()
    assert not policy.allow_without_privacy
    assert not policy.release_evaluation


@pytest.mark.parametrize(
    ("policy", "changes", "code"),
    [
        ({"paused": True}, {}, "site-paused"),
        ({"allowed_recipes": ("other",)}, {}, "recipe-not-allowed"),
        ({"allowed_recipes": ("toys",)}, {}, "recipe-not-allowed"),
        ({}, {"epsilon": None}, "privacy-required"),
        ({}, {}, "patients-undeclared"),
        ({}, {"purpose": "preflight"}, "patients-undeclared"),
        ({"declared_patients": 200_000}, {}, "delta-too-large"),
        ({}, {"purpose": "evaluate"}, "evaluation-not-released"),
    ],
)
def test_what_a_policy_refuses(
    policy: dict[str, object], changes: dict[str, object], code: str
) -> None:
    fields = {"allowed_recipes": ("toy",), **policy}
    with pytest.raises(WardroundError) as caught:
        SitePolicy.model_validate(fields).check(make_plan(**changes), own=TOY, now=NOON)  # type: ignore[arg-type]
    assert caught.value.code == code


def test_what_a_policy_allows() -> None:
    policy = SitePolicy(
        allowed_recipes=("toy",),
        allow_without_privacy=True,
        release_evaluation=True,
        declared_patients=100,
    )
    for changes in ({}, {"epsilon": None}, {"purpose": "evaluate"}, {"purpose": "preflight"}):
        policy.check(make_plan(**changes), own=TOY, now=NOON)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("hours", "time", "is_open"),
    [
        ("08:00-18:00", "08:00", True),
        ("08:00-18:00", "18:00", False),
        ("08:00-18:00", "07:59", False),
        ("22:00-06:00", "23:30", True),
        ("22:00-06:00", "05:59", True),
        ("22:00-06:00", "12:00", False),
    ],
)
def test_opening_hours(hours: str, time: str, is_open: bool) -> None:
    policy = SitePolicy(allowed_recipes=("toy",), declared_patients=100, open_hours=hours)
    now = datetime.fromisoformat(f"2026-03-01T{time}+00:00").timestamp()
    closed = contextlib.nullcontext() if is_open else pytest.raises(PlanRefused, match="hours")
    with closed:
        policy.check(make_plan(), own=TOY, now=now)


def allows(asked: Recipe, *, own: Recipe | None = TOY, entry: str = "toy") -> bool:
    policy = SitePolicy(allowed_recipes=(entry,), declared_patients=100)
    try:
        policy.check(make_plan(recipe=asked), own=own, now=NOON)
    except PlanRefused as error:
        return error.code != "recipe-changed"
    return True


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": ("bright", "dark")},
        {"classes": ("dark", "bright", "other")},
        {"image": ImageSpec(size=32, region="tissue")},
        {"image": ImageSpec(size=32, mean=(0.0, 0.0, 0.0))},
        {"loss": LossSpec(class_weights=(1.0, 1e9))},
        {"augmentation": Augmentation(rotation_degrees=10)},
        {"model": ModelSpec(architecture="test_vit")},
        {"decision": DecisionSpec(positive_classes=("dark",))},
    ],
)
def test_a_recipe_may_not_change_under_its_name(changes: dict[str, object]) -> None:
    assert allows(TOY)
    asked = TOY.model_copy(update=changes)
    assert not allows(asked)
    assert not allows(asked, entry=f"toy@{TOY.digest}")
    assert allows(asked, entry=f"toy@{asked.digest}")  # where it is allowed on purpose


def test_a_coordinator_may_choose_its_own_side() -> None:
    own = TOY.model_copy(
        update={"model": ModelSpec(architecture="test_resnet", alternatives=("test_vit",))}
    )
    asked = own.with_changes(model="test_vit", image_size=64, rounds=9, epsilon=2.0)
    assert allows(asked, own=own)
    assert not allows(asked, own=None)
    assert not allows(asked, own=own, entry=f"toy@{own.digest}")  # a digest means exactly that
