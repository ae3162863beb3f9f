"""The release manifest: deterministic, strict, and clear about what is wrong."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from common.errors import ReleaseError
from common.release import (
    MAXIMUM_MANIFEST_BYTES,
    GateCheck,
    LatestRelease,
    LimitedRelease,
    ModelFile,
    ReleaseDraft,
    ReleaseManifest,
    latest_target,
    model_target,
    parse_latest,
    parse_manifest,
    release_target,
)
from tests.releases import TASK, draft


def manifest(version: int = 3) -> ReleaseManifest:
    made = draft(1)
    file = ModelFile(name=model_target(made.model_digest), sha256="a" * 64, bytes=10)
    return made.released(version, file)


def altered(**changes: object) -> bytes:
    document = json.loads(manifest().to_json())
    return json.dumps({**document, **changes}).encode()


def test_a_manifest_comes_back_as_it_went() -> None:
    assert parse_manifest(manifest().to_json()) == manifest()
    assert manifest().classes == manifest().recipe.classes
    assert manifest().task == TASK


def test_equal_manifests_give_equal_bytes_whatever_the_order_of_the_fields() -> None:
    document = json.loads(manifest().to_json())
    reordered = json.dumps(dict(reversed(document.items())), indent=2).encode()
    assert parse_manifest(reordered).to_json() == manifest().to_json()


def test_equal_moments_in_other_time_zones_give_equal_bytes() -> None:
    eastern = timezone(timedelta(hours=-5))
    moment = datetime(2025, 1, 1, 22, 4, 5, 123, tzinfo=eastern)
    assert parse_manifest(altered(created_at=moment.isoformat())).to_json() == manifest().to_json()


def test_sites_of_before_can_read_a_check_that_lacked_cases() -> None:
    """They know five fields of a check, and refuse a manifest with any other."""
    unsure = GateCheck(name="worst-site", passed=True, unjudged=("north",), explanation="north")
    sure = GateCheck(name="accuracy", passed=True, figure=0.9)
    made = draft(1).model_copy(update={"gate": (unsure, sure)})
    file = ModelFile(name=model_target(made.model_digest), sha256="a" * 64, bytes=10)
    for check in json.loads(made.released(1, file).to_json())["gate"]:
        assert check.keys() <= {"name", "passed", "figure", "limit", "explanation"}
    assert made.gate[0].verdict == "not enough cases to judge"  # as the coordinator shows it


def test_releasing_a_manifest_again_replaces_version_and_file() -> None:
    again = manifest(3).released(4, manifest(3).file)
    assert (again.version, type(again)) == (4, ReleaseManifest)
    assert ReleaseDraft.model_fields.keys() < ReleaseManifest.model_fields.keys()


@pytest.mark.parametrize(
    "changes",
    [
        {"surprise": 1},
        {"version": 0},
        {"version": 2**31},
        {"version": "three"},
        {"model_digest": "b" * 64},
        {"model_digest": "../../etc/passwd"},
        {"threshold": 1.5},
        {"threshold": None},
        {"created_at": "2025-01-02T03:04:05"},
        {"file": {"name": "../model.safetensors", "sha256": "a" * 64, "bytes": 10}},
        {"lineage": {"campaign": "c", "candidate": "c", "rounds": 1, "base_release": 3}},
        {"lineage": {"campaign": "C/../", "candidate": "c", "rounds": 1}},
        {"gate": [{"name": "x", "passed": True, "figure": "NaN"}]},
        {"recipe": {}},
    ],
)
def test_a_broken_manifest_is_refused_with_the_field_in_the_message(
    changes: dict[str, object],
) -> None:
    with pytest.raises(ReleaseError) as caught:
        parse_manifest(altered(**changes))
    assert caught.value.code == "manifest-malformed"
    assert next(iter(changes)) in str(caught.value)


def test_a_huge_manifest_is_refused_unread() -> None:
    with pytest.raises(ReleaseError) as caught:
        parse_manifest(b" " * (MAXIMUM_MANIFEST_BYTES + 1))
    assert caught.value.code == "manifest-too-large"


def test_a_release_is_never_its_own_base() -> None:
    lineage = manifest().lineage.model_copy(update={"base_release": 3})
    with pytest.raises(ReleaseError):
        manifest().model_copy(update={"lineage": lineage}).released(3, manifest().file)


def test_a_manifest_is_frozen() -> None:
    with pytest.raises(ValidationError):
        manifest().version = 9  # type: ignore[misc]


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_foreign_bytes_are_refused_and_nothing_else_happens(data: bytes) -> None:
    for parse in (parse_manifest, parse_latest):
        with pytest.raises(ReleaseError):
            parse(data)


def test_target_names_and_the_pointer() -> None:
    assert release_target(12) == "release-12.json"
    assert latest_target(TASK) == "latest-mammography.json"
    pointer = LatestRelease(task=TASK, version=12)
    assert pointer.to_json() == b'{"task":"mammography","version":12}'
    assert parse_latest(pointer.to_json()) == pointer


def test_a_rollout_says_who_may_take_what() -> None:
    rollout = LatestRelease(
        task=TASK,
        version=3,
        limited=(
            LimitedRelease(version=5, held=True),
            LimitedRelease(version=7, sites=("north",)),
            LimitedRelease(version=8, sites=("west",), held=True),
        ),
    )
    assert parse_latest(rollout.to_json()) == rollout
    assert rollout.newest == 8
    assert rollout.offered("north") == 7
    assert [rollout.offered("south", current=v) for v in (0, 3, 5, 8)] == [3, 3, 5, 3]
    assert [rollout.offered("west", current=v) for v in (3, 8)] == [3, 8]


@pytest.mark.parametrize("versions", [(3,), (5, 5), (6, 5)])
def test_a_rollout_out_of_order_is_refused(versions: tuple[int, ...]) -> None:
    limited = [{"version": version, "sites": ["north"]} for version in versions]
    document = {"task": TASK, "version": 3, "limited": limited}
    with pytest.raises(ReleaseError):
        parse_latest(json.dumps(document).encode())


def test_a_ring_of_nobody_is_refused() -> None:
    with pytest.raises(ValidationError):
        LimitedRelease(version=1, sites=())
