"""Aggregation as a campaign sees it: bounds from the first round on, and what is recorded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from common.errors import RoundFailed
from common.plan import RoundPlan
from common.records import SiteReply
from common.wire import reply_to_records
from server.model_store import ModelStore
from tests.fakes import TARGET, FakeSite, rebuilt, scaled, toy_recipe
from tests.server.campaigns import Coordinator


def federation(folder: Path, *, behave: object, patients: int = 100) -> Coordinator:
    honest = [FakeSite(name) for name in ("north", "south", "west")]
    liar = FakeSite("east", patients=patients, behave=behave)  # type: ignore[arg-type]
    return Coordinator(folder, [*honest, liar])


def final(
    coordinator: Coordinator, *, rounds: int = 1, **aggregation: object
) -> NDArray[np.generic]:
    recipe = toy_recipe(rounds=rounds, aggregation=aggregation)
    candidate = coordinator.run(coordinator.create(recipe, rounds=rounds))
    return ModelStore(coordinator.settings.models).load(candidate.model_digest)["head.weight"]


WANTED = TARGET["head.weight"] * 0.5  # what one honest round makes of it


def flipped(reply: SiteReply, plan: RoundPlan) -> object:
    if reply.update is None:
        return reply_to_records(reply)
    return rebuilt(reply, {name: -array for name, array in reply.update.tensors.items()})


@pytest.mark.parametrize(
    "name", ["mean", "median", "trimmed-mean", "krum", "near-median", "descent"]
)
def test_an_update_a_hundred_times_too_long_is_cut_in_the_first_round(
    tmp_path: Path, name: str
) -> None:
    found = final(federation(tmp_path, behave=scaled(100)), name=name)
    assert np.abs(found).max() <= 3 * np.abs(WANTED).max()
    free = final(federation(tmp_path / "free", behave=scaled(100)), name="mean", norm_multiple=0)
    assert np.abs(free).max() > 10 * np.abs(WANTED).max(), "without the bound it is not"


@pytest.mark.parametrize("name", ["median", "trimmed-mean", "krum", "near-median", "descent"])
def test_a_flipped_sign_moves_no_robust_aggregate(tmp_path: Path, name: str) -> None:
    found = final(federation(tmp_path, behave=flipped), name=name)
    np.testing.assert_allclose(found, WANTED, rtol=1e-6)


def test_a_liar_with_most_of_the_patients_is_known_by_its_climbing(tmp_path: Path) -> None:
    """Three sites, one with 2,800 of 3,000 patients: nothing lies near a median there."""

    def final_distance(folder: Path, name: str) -> float:
        sites = [FakeSite("north"), FakeSite("south")]
        liar = FakeSite("east", patients=2_800, behave=flipped)
        coordinator = Coordinator(folder, [*sites, liar])
        found = final(coordinator, rounds=8, name=name, largest_share=1.0)
        return float(np.linalg.norm(found - TARGET["head.weight"]))

    start = float(np.linalg.norm(TARGET["head.weight"]))
    assert final_distance(tmp_path / "mean", "mean") > start
    assert final_distance(tmp_path / "descent", "descent") < start / 10


def test_a_false_number_of_patients_is_capped(tmp_path: Path) -> None:
    lying: Callable[..., object] = flipped
    found = final(federation(tmp_path, behave=lying, patients=10_000_000), name="mean")
    np.testing.assert_allclose(found, 0, atol=1e-6)  # half against half, and no more
    free = federation(tmp_path / "free", behave=lying, patients=10_000_000)
    turned = final(free, name="mean", largest_share=1.0)
    np.testing.assert_allclose(turned, -WANTED, rtol=1e-3)


def test_how_far_each_update_lay_is_recorded(tmp_path: Path) -> None:
    coordinator = federation(tmp_path, behave=flipped)
    campaign = coordinator.create(toy_recipe(aggregation={"name": "median"}), rounds=1)
    coordinator.run(campaign)
    liar, honest = (coordinator.contribution(campaign, s) for s in ("east", "north"))
    assert liar.update_cosine == pytest.approx(-1)
    assert honest.update_cosine == pytest.approx(1)
    assert liar.update_norm == pytest.approx(honest.update_norm)
    assert liar.update_distance is None, "the others agree to the last bit"
    scored = coordinator.contribution(campaign, "north", number=2)
    assert (scored.update_norm, scored.update_cosine, scored.update_distance) == (None,) * 3


def test_a_failed_round_leaves_no_update_behind(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path, [FakeSite("north")])
    with pytest.raises(RoundFailed):
        coordinator.run(coordinator.create(rounds=1))
    files = [p for p in (coordinator.settings.data / "campaigns").rglob("*") if p.is_file()]
    assert [p.name for p in files if p.stat().st_size] == []
