import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.policy import SitePolicy
from common.errors import PrivacyRefused, WardroundError
from tests.client.rounds import make_plan


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
        "max_grad_norm = -1",
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
        ({}, {"epsilon": None}, "privacy-required"),
        ({}, {"purpose": "evaluate"}, "evaluation-not-released"),
    ],
)
def test_what_a_policy_refuses(
    policy: dict[str, object], changes: dict[str, object], code: str
) -> None:
    fields = {"allowed_recipes": ("toy",), **policy}
    with pytest.raises(WardroundError) as caught:
        SitePolicy.model_validate(fields).check(make_plan(**changes))  # type: ignore[arg-type]
    assert caught.value.code == code


def test_what_a_policy_allows() -> None:
    policy = SitePolicy(
        allowed_recipes=("toy",), allow_without_privacy=True, release_evaluation=True
    )
    policy.check(make_plan())
    policy.check(make_plan(epsilon=None))
    policy.check(make_plan(purpose="evaluate"))
