"""Updates on disk: in order, read in blocks, unseen, and no more memory for more of them."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.rounds.aggregation import aggregate
from server.rounds.aggregation_spool import UpdateSpool
from tests.server.rounds.spooling import NAMES, line, spec, spooled, values


def test_updates_are_kept_in_order_of_their_sites(tmp_path: Path) -> None:
    with UpdateSpool(tmp_path, {"w": (1,)}) as spool:
        for site, value in (("west", 3.0), ("east", 1.0), ("north", 2.0)):
            spool.add(site, {"w": line(value)}, weight=value, norm=value)
        assert [u.site for u in spool.updates] == ["east", "north", "west"]
        ((_, rows),) = spool.blocks()
    np.testing.assert_array_equal(rows[:, 0], [1, 2, 3])


@given(st.lists(values, min_size=1, max_size=6), st.integers(1, 7), st.sampled_from(NAMES[:3]))
def test_blocks_change_nothing(rows: list[np.ndarray], coordinates: int, name: str) -> None:
    chosen = spec(name, norm_multiple=2.0)
    whole = spooled(rows, chosen)
    parts = spooled(rows, chosen, block_bytes=8 * len(rows) * coordinates)
    np.testing.assert_allclose(whole.delta["w"], parts.delta["w"], rtol=1e-5, atol=1e-5)
    for site, deviation in whole.deviations.items():
        other = parts.deviations[site].distance
        assert (deviation.distance is None) == (other is None)
        assert deviation.distance is None or deviation.distance == pytest.approx(other)


def test_blocks_change_nothing_for_krum() -> None:
    """Random rows: among equal scores, the last bit of a sum would decide."""
    rows = list(np.random.default_rng(1).normal(size=(7, 50)).astype(np.float32))
    whole = spooled(rows, spec("krum", malicious=2)).delta["w"]
    parts = spooled(rows, spec("krum", malicious=2), block_bytes=8 * 7 * 3).delta["w"]
    np.testing.assert_allclose(whole, parts, rtol=1e-6)


def test_tensors_keep_their_names_and_shapes(tmp_path: Path) -> None:
    shapes = {"b": (2, 3), "a": (4,), "scalar": ()}
    delta = {n: np.full(s, i, np.float32) for i, (n, s) in enumerate(shapes.items())}
    with UpdateSpool(tmp_path, shapes) as spool:
        spool.add("north", delta, weight=1, norm=1)
        found = aggregate(spool, spec()).delta
    assert {n: a.shape for n, a in found.items()} == shapes
    for name, array in delta.items():
        np.testing.assert_array_equal(found[name], array)


def test_no_update_is_ever_seen_as_a_file(tmp_path: Path) -> None:
    """Not even a process that is killed leaves one site's update behind."""
    with UpdateSpool(tmp_path / "new", {"w": (1000,)}) as spool:
        spool.add("north", {"w": np.ones(1000, np.float32)}, weight=1, norm=1)
        assert not list((tmp_path / "new").iterdir())
        assert (tmp_path / "new").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", NAMES)
def test_memory_does_not_grow_with_the_number_of_sites(tmp_path: Path, name: str) -> None:
    size, block = 500_000, 2**20

    def peak(sites: int) -> int:
        with UpdateSpool(tmp_path, {"a": (size,)}, block_bytes=block) as spool:
            tracemalloc.start()
            for seed in range(sites):
                row = np.full(size, seed, dtype=np.float32)
                spool.add(f"s{seed}", {"a": row}, weight=1, norm=float(seed + 1))
            aggregate(spool, spec(name, norm_multiple=3))
            found = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            return found

    few, many = peak(3), peak(24)
    assert many < few * 1.2
    assert many < size * 4 * 2 + 8 * block, "one update, one aggregate and a few blocks"
