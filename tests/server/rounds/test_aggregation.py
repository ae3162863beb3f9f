"""What each aggregator makes of honest updates and of liars, and who weighs what."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from common.errors import RoundFailed
from common.recipe import AggregationSpec
from server.rounds.aggregation import (
    aggregate,
    capped_shares,
    descending,
    krum_selection,
    nearest,
    norm_factors,
    trimmed,
)
from server.rounds.aggregation_spool import UpdateSpool
from tests.server.rounds.spooling import NAMES, line, spec, spool, spooled, values

UNWEIGHTED = NAMES[1:4]
FIVE = [line(1, 10), line(2, 20), line(3, 30), line(4, 40), line(100, -100)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mean", [22, 0]),
        ("median", [3, 20]),
        ("trimmed-mean", [3, 20]),  # the middle three of each coordinate
        ("krum", [2.5, 25]),  # without the last, which is far from all
        ("near-median", [2.5, 25]),
        ("descent", [2.5, 25]),  # nothing is known of any site yet
    ],
)
def test_five_updates_computed_by_hand(name: str, expected: list[float]) -> None:
    np.testing.assert_allclose(spooled(FIVE, spec(name)).delta["w"], expected, rtol=1e-6)


ALIKE, UNKNOWN = np.ones(5), np.full(5, np.nan)
APART = np.array([1.0, 5.0, 2.0, 3.0, 4.0])


@pytest.mark.parametrize(
    ("climbing", "factors", "malicious", "kept"),
    [
        (UNKNOWN, ALIKE, 1, [0, 2, 3, 4]),  # the farthest, of which nothing is known
        (-ALIKE, ALIKE, 1, [0, 1, 2, 3, 4]),  # all descend: how far apart they lie is no matter
        (np.array([-1, np.nan, -1, 0.2, -1]), ALIKE, 1, [0, 1, 2, 4]),
        (np.array([-1, np.nan, -1, 0.2, -1]), ALIKE, 2, [0, 2, 4]),
        (np.array([0.1, -1, 0.3, 0.2, -1]), ALIKE, 1, [0, 1, 3, 4]),
        (np.array([0.1, -1, 0.3, 0.2, -1]), ALIKE, 4, [0, 1, 4]),  # a majority stays
        (np.array([0.1, -1, 0.3, 0.2, -1]), np.array([1, 1, 1, 1, 0.3]), 1, [0, 1, 2, 3]),
        (-ALIKE, np.array([1, 1, 1, 1, 0.4]), 1, [0, 1, 2, 3, 4]),  # long, but not grossly
        (np.array([0.1, -1, 0.3, 0.2, -1]), ALIKE, 0, [0, 1, 2, 3, 4]),
    ],
)
def test_who_is_suspicious(
    climbing: np.ndarray, factors: np.ndarray, malicious: int, kept: list[int]
) -> None:
    assert list(descending(climbing, APART, factors, malicious)) == kept


def test_a_larger_fraction_trims_more() -> None:
    found = spooled(FIVE, spec("trimmed-mean", trim_fraction=0.4)).delta["w"]
    np.testing.assert_allclose(found, [3, 20])


@pytest.mark.parametrize(
    ("count", "fraction", "cut"),
    [(5, 0.2, 1), (4, 0.25, 1), (3, 0.1, 1), (2, 0.25, 0), (1, 0.25, 0), (10, 0.3, 3), (5, 0, 0)],
)
def test_rounding_does_not_switch_trimming_off(count: int, fraction: float, cut: int) -> None:
    assert trimmed(count, fraction) == cut


@given(st.integers(1, 60), st.floats(0, 0.49))
def test_flowers_trimming_cuts_what_was_meant(count: int, fraction: float) -> None:
    """Of 0, 1, ..., n - 1 the mean is the same at any cut, so the largest is made immense."""
    rows = [line(float(n)) for n in range(count - 1)] + [line(1e9)]
    found = float(spooled(rows, spec("trimmed-mean", trim_fraction=fraction)).delta["w"][0])
    assert (found > count) == (trimmed(count, fraction) == 0 and count > 0)


def test_the_largest_of_49_is_cut() -> None:
    """1 / 49 * 49 is a little less than 1, which rounding down would make 0."""
    rows = [line(float(n)) for n in range(48)] + [line(1e9)]
    assert spooled(rows, spec("trimmed-mean", trim_fraction=1 / 49)).delta["w"][0] < 49


@given(st.lists(st.tuples(values, st.integers(1, 100)), min_size=1, max_size=6))
def test_the_mean_is_weighted(parts: list[tuple[np.ndarray, int]]) -> None:
    weights = [w for _, w in parts]
    expected = np.average([a for a, _ in parts], axis=0, weights=weights)
    found = spooled([a for a, _ in parts], spec(largest_share=1.0), weights=weights)
    np.testing.assert_allclose(found.delta["w"], expected, atol=1e-3)
    assert found.delta["w"].dtype == np.float32


@given(st.lists(values, min_size=3, max_size=6), st.randoms(), st.sampled_from(NAMES))
def test_who_answers_first_does_not_matter(rows: list[np.ndarray], random, name: str) -> None:
    def run(order: list[int]) -> np.ndarray:
        with spool({"w": (2, 3)}) as opened:
            for index in order:
                norm = float(np.linalg.norm(rows[index]))
                opened.add(f"s{index}", {"w": rows[index]}, weight=index + 1, norm=norm)
            return aggregate(opened, AggregationSpec.model_validate({"name": name})).delta["w"]

    order = list(range(len(rows)))
    first = run(order)
    random.shuffle(order)
    np.testing.assert_array_equal(first, run(order))


honest = arrays(np.float32, (7, 4), elements=st.floats(-1, 1, width=32))
hostile = arrays(np.float32, (2, 4), elements=st.floats(-1e6, 1e6, width=32))


@given(honest, hostile, st.sampled_from(["median", "trimmed-mean"]))
def test_two_liars_of_nine_cannot_leave_the_honest_range(
    good: np.ndarray, bad: np.ndarray, name: str
) -> None:
    """Yin et al. 2018: with no more liars than are cut off, each coordinate stays honest."""
    found = spooled([*bad, *good], spec(name)).delta["w"]
    assert np.all(found >= good.min(axis=0) - 1e-6)
    assert np.all(found <= good.max(axis=0) + 1e-6)


@given(honest, hostile, st.sampled_from(["krum", "near-median", "descent"]))
def test_what_is_kept_is_near_the_honest(good: np.ndarray, bad: np.ndarray, name: str) -> None:
    """A liar that is kept lies no farther out than the honest ones lie apart."""
    found = spooled([*bad, *good], spec(name, malicious=2)).delta["w"]
    spread = max(float(np.linalg.norm(a - b)) for a in good for b in good)
    assert np.linalg.norm(found - good.mean(axis=0)) <= 4 * spread + 1e-5


@given(honest, hostile, st.sampled_from(NAMES))
def test_the_norm_bound_holds_in_the_first_round(
    good: np.ndarray, bad: np.ndarray, name: str
) -> None:
    found = spooled([*bad, *good], spec(name, norm_multiple=2.0)).delta["w"]
    longest = max(float(np.linalg.norm(row)) for row in good)
    assert np.linalg.norm(found) <= 2 * longest * (2 if name == "median" else 1) + 1e-5


def test_one_liar_moves_a_mean_without_a_bound_and_the_tests_above_can_fail() -> None:
    rows = [line(1e6, 0), *[line(1, 1)] * 3]
    assert spooled(rows, spec("mean")).delta["w"][0] > 1e5
    assert spooled(rows, spec("mean", norm_multiple=2.0)).delta["w"][0] < 2


@pytest.mark.parametrize("name", UNWEIGHTED)
def test_a_declared_weight_moves_no_robust_aggregate(name: str) -> None:
    rows = FIVE
    plain = spooled(rows, spec(name)).delta["w"]
    claimed = spooled(rows, spec(name), weights=[1, 1, 1, 1, 10_000_000]).delta["w"]
    np.testing.assert_array_equal(plain, claimed)


def test_a_norm_is_bounded_by_the_lower_median() -> None:
    np.testing.assert_allclose(norm_factors([1, 100], 3), [1, 0.03])
    np.testing.assert_allclose(norm_factors([1, 2, 3, 400], 3), [1, 1, 1, 6 / 400])
    np.testing.assert_allclose(norm_factors([0, 0, 5], 3), [1, 1, 0])
    np.testing.assert_allclose(norm_factors([0, 5], 3), [1, 1])
    np.testing.assert_allclose(norm_factors([1, 100], 0), [1, 1])


@given(
    st.lists(st.integers(1, 10_000_000), min_size=1, max_size=12),
    st.floats(0.05, 1.0),
)
def test_shares_are_a_distribution_and_capped(weights: list[int], largest: float) -> None:
    shares = capped_shares(weights, largest)
    assert shares.sum() == pytest.approx(1)
    assert np.all(shares > 0)
    assert shares.max() <= max(largest, 1 / len(weights)) * (1 + 1e-6)
    order = np.argsort(weights, kind="stable")
    assert np.all(np.diff(shares[order]) >= -1e-9), "who declares more never weighs less"


def test_a_false_claim_is_capped_and_the_rest_shared_in_proportion() -> None:
    np.testing.assert_allclose(capped_shares([10_000_000, 100, 300], 0.5), [0.5, 0.125, 0.375])
    np.testing.assert_allclose(capped_shares([100, 300], 0.5), [0.5, 0.5])
    np.testing.assert_allclose(capped_shares([100, 200, 300], 0.5), [1 / 6, 1 / 3, 1 / 2])


def test_the_share_of_two_sites_is_what_they_declare() -> None:
    found = spooled([line(0), line(4)], spec("mean"), weights=[100, 300]).delta["w"]
    np.testing.assert_allclose(found, [3])


def test_near_the_median_sites_weigh_what_they_declare_but_no_more_than_half() -> None:
    rows = [line(1), line(2), line(3), line(90)]
    found = spooled(rows, spec("near-median"), weights=[100, 100, 200, 100]).delta["w"]
    np.testing.assert_allclose(found, [2.25])
    found = spooled(rows, spec("near-median"), weights=[100, 300, 10_000_000, 100]).delta["w"]
    np.testing.assert_allclose(found, [0.125 * 1 + 0.375 * 2 + 0.5 * 3])


@pytest.mark.parametrize(
    ("count", "malicious", "kept"),
    [(4, 1, 3), (3, 1, 2), (2, 1, 2), (1, 1, 1), (5, 4, 3), (4, 0, 4)],
)
def test_a_majority_always_stays(count: int, malicious: int, kept: int) -> None:
    assert len(nearest(np.arange(count, dtype=float), malicious)) == kept


@pytest.mark.parametrize("name", ["krum", "near-median"])
def test_a_refused_update_counts_among_the_malicious(tmp_path: Path, name: str) -> None:
    """Otherwise a hospital would be cut off beside the liar that was caught."""
    with UpdateSpool(tmp_path, {"w": (1,)}) as spool:
        for site, value in (("a", 1.0), ("b", 2.0), ("c", 6.0)):
            spool.add(site, {"w": line(value)}, weight=1, norm=value)
        cut = aggregate(spool, spec(name)).delta["w"]
        whole = aggregate(spool, spec(name), refused=1).delta["w"]
    np.testing.assert_allclose([cut[0], whole[0]], [1.5, 3.0])


def test_krum_drops_the_far_ones() -> None:
    points = np.array([[0.0], [1], [2], [50], [3], [-60]])
    distances = np.square(points - points.T)
    np.testing.assert_array_equal(krum_selection(distances, 2), [0, 1, 2, 4])


def test_krum_bears_twins() -> None:
    """Of two equal updates neither is its own neighbour only."""
    distances = np.square(np.array([[5.0], [5], [0], [0.1], [0.2]]) - [5, 5, 0, 0.1, 0.2])
    assert 2 in krum_selection(distances, 1)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_has_no_aggregate(name: str) -> None:
    with spool({"w": (2,)}) as opened, pytest.raises(RoundFailed) as caught:
        aggregate(opened, spec(name))
    assert caught.value.code == "no-updates"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_updates_have_one(name: str, count: int) -> None:
    found = spooled([line(2, 4)] * count, spec(name)).delta["w"]
    np.testing.assert_allclose(found, [2, 4])


def test_a_name_that_nobody_knows_is_not_the_mean() -> None:
    """A recipe refuses it as it is read; a name that is added without its branch must not pass."""
    unknown = spec().model_copy(update={"name": "bulyan"})
    with pytest.raises(AssertionError):
        spooled([line(1, 2), line(3, 4), line(5, 6)], unknown)
