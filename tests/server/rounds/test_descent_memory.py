"""Who climbs and who descends, out of the updates alone."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.errors import StoreError
from server.rounds.aggregation_spool import BLOCK_BYTES, UpdateSpool
from server.rounds.descent_memory import DescentMemory

SIZE = 6


class Round:
    """Judges rows of one tensor ``w``, each the update of the site that is named."""

    def __init__(self, folder: Path, *, block_bytes: int = BLOCK_BYTES) -> None:
        self.folder, self.block_bytes = folder, block_bytes
        self.memory = DescentMemory(folder)

    def judge(
        self, model: NDArray[np.float64], updates: dict[str, NDArray[np.float64]]
    ) -> dict[str, float]:
        shapes = {"w": model.shape}
        with UpdateSpool(self.folder, shapes, block_bytes=self.block_bytes) as spool:
            for site, row in updates.items():
                delta = {"w": row.astype(np.float32)}
                spool.add(site, delta, weight=1.0, norm=float(np.linalg.norm(row)))
            found = self.memory.judge(
                spool, {"w": model.astype(np.float32), "frozen": model}, norm_multiple=3
            )
            return {u.site: float(v) for u, v in zip(spool.updates, found, strict=True)}


def campaign(
    rounds: Round,
    optima: dict[str, NDArray[np.float64]],
    *,
    liar: str | None,
    noise: float = 0.0,
    count: int = 30,
    shares: Sequence[float] | None = None,
    absent: frozenset[tuple[str, int]] = frozenset(),
) -> list[dict[str, float]]:
    """Quadratic losses with an optimum a site, one step a round down the mean of the honest."""
    random = np.random.default_rng(1)
    curvature = {site: random.uniform(0.2, 2.0, SIZE) for site in optima}
    weights = np.ones(len(optima)) / len(optima) if shares is None else np.asarray(shares)
    model, found = np.zeros(SIZE), []
    for number in range(count):
        updates = {}
        for site, optimum in optima.items():
            step = 0.1 * curvature[site] * (optimum - model) + noise * random.normal(size=SIZE)
            if (site, number) not in absent:
                updates[site] = -step if site == liar else step
        found.append(rounds.judge(model, updates))
        chosen = [weights[list(optima).index(site)] for site in updates]
        model = model + np.average(list(updates.values()), axis=0, weights=chosen)
    return found


def unlike(seed: int) -> dict[str, NDArray[np.float64]]:
    random = np.random.default_rng(seed)
    return {site: random.normal(size=SIZE) * 3 for site in ("a", "b", "c", "d")}


@given(st.integers(0, 1000), st.sampled_from(["a", "b", "c", "d", None]))
def test_without_noise_the_liar_climbs_and_nobody_else(seed: int, liar: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = campaign(Round(Path(folder)), unlike(seed), liar=liar)
    assert all(np.isnan(list(scores.values())).all() for scores in found[:2])
    for scores in found[2:]:
        for site, score in scores.items():
            assert (score > 0) == (site == liar)


@pytest.mark.parametrize("liar", ["a", "b", "c", "d"])
def test_the_liar_stands_out_of_noise_longer_than_the_steps(tmp_path: Path, liar: str) -> None:
    """Even where it alone has most of the weight, for it is compared with nobody but itself."""
    shares = [0.7 if site == liar else 0.1 for site in "abcd"]
    last = campaign(Round(tmp_path), unlike(3), liar=liar, noise=0.3, count=60, shares=shares)[-1]
    assert last[liar] > 0
    assert max(last, key=lambda site: last[site]) == liar


def test_the_sums_are_those_of_all_pairs(tmp_path: Path) -> None:
    """Against the definition, with a site that was away; bounded as the mean's updates are."""
    random = np.random.default_rng(5)
    rounds, history = Round(tmp_path, block_bytes=64), []
    for number in range(8):
        model = random.normal(size=SIZE) + number
        updates = {s: random.normal(size=SIZE) for s in "abc" if (s, number) != ("b", 4)}
        found = rounds.judge(model, updates)
        history.append((model, updates))
    for site in "abc":
        own = [(model, updates[site]) for model, updates in history if site in updates]
        climbing = scale = 0.0
        for t in range(len(own)):
            pairs = [(own[t][1] - own[n][1], own[t][0] - own[n + 1][0]) for n in range(t)]
            climbing += sum(float(d @ w) for d, w in pairs)
            way = np.sum([w for _, w in pairs], axis=0) if pairs else np.zeros(SIZE)
            scale += float(np.linalg.norm(own[t][1]) * np.linalg.norm(way))
        assert found[site] == pytest.approx(climbing / scale, rel=1e-3)


def test_one_grossly_long_update_does_not_wash_a_liar_clean(tmp_path: Path) -> None:
    """It pretends to descend, a million times as far as it could."""
    rounds, optima = Round(tmp_path), unlike(4)
    random, model = np.random.default_rng(2), np.zeros(SIZE)
    for number in range(12):
        updates = {
            s: 0.1 * (o - model) + 0.001 * random.normal(size=SIZE) for s, o in optima.items()
        }
        updates["a"] = 1e6 * updates["a"] if number == 4 else -updates["a"]
        found = rounds.judge(model, updates)
        model = model + np.mean([updates[s] for s in "bcd"], axis=0)
        assert not found["a"] <= 0
    assert found["a"] > 0


def test_blocks_change_nothing(tmp_path: Path) -> None:
    whole = campaign(Round(tmp_path), unlike(7), liar="b", noise=0.1)
    parts = campaign(Round(tmp_path, block_bytes=8), unlike(7), liar="b", noise=0.1)
    for one, other in zip(whole, parts, strict=True):
        assert one == pytest.approx(other, rel=1e-3, nan_ok=True)


def test_a_site_that_is_away_for_some_rounds_is_known_all_the_same(tmp_path: Path) -> None:
    away = frozenset(("c", number) for number in (0, 1, 5, 6, 7))
    found = campaign(Round(tmp_path), unlike(11), liar="c", absent=away)
    assert "c" not in found[5]
    assert found[-1]["c"] > 0
    assert all(score < 0 for site, score in found[-1].items() if site != "c")


def test_what_is_forgotten_is_known_no_more(tmp_path: Path) -> None:
    rounds = Round(tmp_path)
    campaign(rounds, unlike(2), liar=None, count=4)
    rounds.memory.forget()
    assert np.isnan(list(campaign(rounds, unlike(2), liar=None, count=1)[0].values())).all()


def test_no_sites_update_has_a_name_on_disk(tmp_path: Path) -> None:
    rounds = Round(tmp_path)
    campaign(rounds, unlike(2), liar=None, count=4)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_an_error_and_not_a_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StoreError) as caught:
        campaign(Round(tmp_path), unlike(2), liar=None, count=1)
    assert caught.value.code == "updates-disk"
