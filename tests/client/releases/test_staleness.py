from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from client.inference.engine import InferenceEngine
from client.releases.policy import ReleasePolicy
from client.releases.policy_file import ReleasePolicyFile
from client.releases.staleness import CheckedHolder, Staleness
from common.errors import PrivacyRefused, ReleaseError
from tests.client.serving import release

START = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """A clock that a test sets, in hours after the start."""

    hours = 0.0

    def __call__(self) -> datetime:
        return START + timedelta(hours=self.hours)


def staleness(clock: Clock, *, vouched: datetime | None = START, **policy: object) -> Staleness:
    made = ReleasePolicy.model_validate(policy)
    return Staleness(lambda: vouched, lambda: made, clock=clock)


def codes(one: Staleness) -> list[str]:
    return [alarm.code for alarm in one.alarms()]


def test_by_default_it_warns_after_a_day_and_never_refuses() -> None:
    clock = Clock()
    one = staleness(clock)
    clock.hours = 23.9
    assert (codes(one), one.refuses) == ([], False)
    clock.hours = 24.1
    assert (codes(one), one.refuses) == (["model-stale"], False)
    assert "goes on answering" in one.alarms()[0].message
    clock.hours = 10_000
    assert not one.refuses
    one.check()


def test_a_hospital_may_have_it_refuse() -> None:
    clock = Clock()
    one = staleness(clock, stale_after=3600.0, refuse_after=7200.0)
    clock.hours = 1.5
    assert (codes(one), one.refuses) == (["model-stale"], False)
    clock.hours = 2.5
    with pytest.raises(ReleaseError) as caught:
        one.check()
    assert caught.value.code == "model-stale"
    assert "No answers" in one.alarms()[0].message


def test_an_unknown_age_counts_from_the_start_of_the_service() -> None:
    clock = Clock()
    one = staleness(clock, vouched=None, stale_after=3600.0, refuse_after=7200.0)
    assert (codes(one), one.seconds) == ([], 0.0)
    clock.hours = 3
    assert one.refuses


def test_a_vouching_that_lies_ahead_is_no_age() -> None:
    one = staleness(Clock(), vouched=START + timedelta(days=9), stale_after=1.0, refuse_after=2.0)
    assert (one.seconds, one.refuses) == (0.0, False)


def test_refusing_before_warning_is_no_policy() -> None:
    with pytest.raises(ValidationError, match="refuse_after"):
        ReleasePolicy(refuse_after=60.0)


def test_a_stale_engine_is_not_given_out(tmp_path: Path) -> None:
    clock, holder = Clock(), CheckedHolder()
    holder.swap(InferenceEngine.load(release(tmp_path, 1), device=torch.device("cpu")))
    holder.check = staleness(clock, stale_after=1.0, refuse_after=2.0).check
    assert holder.require() is holder.current
    clock.hours = 1
    with pytest.raises(ReleaseError):
        holder.require()
    assert holder.current is not None, "what it is can still be told"


def test_the_policy_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    file = ReleasePolicyFile(path)
    assert file.read() == ReleasePolicy()
    path.write_text('[releases]\non_release = "hold"\n')
    assert (file.read().on_release, file.known().on_release) == ("hold", "hold")
    path.write_text('[releases]\non_release = "whatever"\n')
    with pytest.raises(PrivacyRefused):
        file.read()
    assert file.known().on_release == "hold", "the last one that could be read"
    path.write_text("")
    assert file.read() == ReleasePolicy()
