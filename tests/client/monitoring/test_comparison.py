"""Intervals hold what they promise, chance is not taken for a difference, and differences show."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from client.monitoring import comparison
from client.monitoring.comparison import (
    adjusted,
    bin_edges,
    binned,
    kernel_discrepancy,
    kolmogorov_smirnov,
    mix_p_value,
    population_stability,
    stability,
)


def test_the_index_is_that_of_its_formula() -> None:
    old, new = np.array([5000, 5000]), np.array([6000, 4000])
    wanted = (0.6 - 0.5) * np.log(0.6 / 0.5) + (0.4 - 0.5) * np.log(0.4 / 0.5)
    assert population_stability(old, new) == pytest.approx(wanted, abs=1e-4)
    found = stability(old, new, np.random.default_rng(0))
    assert found.low < wanted < found.high
    assert found.estimate == pytest.approx(wanted, abs=5e-4)


def test_the_interval_of_the_index_holds_the_true_one() -> None:
    p, q = np.full(10, 0.1), np.array([0.05] * 3 + [0.1] * 4 + [0.15] * 3)
    true = float(((q - p) * np.log(q / p)).sum())
    generator, inside, estimates = np.random.default_rng(1), 0, []
    for _ in range(300):
        found = stability(generator.multinomial(300, p), generator.multinomial(400, q), generator)
        inside += found.low <= true <= found.high
        estimates.append(found.estimate)
    assert 0.90 <= inside / 300 <= 0.99
    assert np.mean(estimates) == pytest.approx(true, abs=0.01)  # uncorrected it is 0.05 too high


def test_alike_samples_have_an_index_near_none_however_small_they_are() -> None:
    generator, p = np.random.default_rng(2), np.full(5, 0.2)
    found = [
        stability(generator.multinomial(50, p), generator.multinomial(60, p), generator)
        for _ in range(200)
    ]
    assert np.mean([one.estimate for one in found]) < 0.06
    assert sum(one.low > 0.1 for one in found) <= 4
    plain = [
        population_stability(generator.multinomial(50, p), generator.multinomial(60, p))
        for _ in range(200)
    ]
    assert np.mean(plain) > 0.1  # which is why chance is taken off


def test_values_that_many_share_have_a_bin_of_their_own() -> None:
    shape = np.zeros(100)
    edges = bin_edges(shape, 10)
    assert binned(np.array([-0.1, 0.0, 0.0, 0.1]), edges).tolist() == [1, 2, 1]
    mostly = np.concatenate([np.zeros(80), np.linspace(0.1, 1, 20)])
    counts = binned(mostly, bin_edges(mostly, 5))
    assert counts.sum() == 100
    assert 80 in counts.tolist()
    plain = np.random.default_rng(0).normal(size=500)
    assert np.ptp(binned(plain, bin_edges(plain, 10))) <= 2


def test_distributions_far_and_near() -> None:
    generator = np.random.default_rng(3)
    old, new = generator.normal(0, 1, 200), generator.normal(0.6, 1, 300)
    distance, p_value = kolmogorov_smirnov(old, new)
    assert (distance, p_value) == pytest.approx(stats.ks_2samp(old, new, method="asymp")[:2])
    assert p_value < 1e-4
    assert kolmogorov_smirnov(np.ones(60), np.ones(70)) == (0.0, 1.0)


def test_a_mix_of_rare_classes_is_no_sensation() -> None:
    assert mix_p_value(np.array([99, 1, 0]), np.array([98, 0, 2])) > 0.05
    assert mix_p_value(np.array([70, 30]), np.array([30, 70])) < 1e-6
    assert mix_p_value(np.array([50, 0]), np.array([80, 0])) == 1.0
    generator = np.random.default_rng(4)
    p = [0.67, 0.11, 0.11, 0.05, 0.03, 0.02, 0.01]
    low = [
        mix_p_value(generator.multinomial(80, p), generator.multinomial(200, p)) < 0.05
        for _ in range(400)
    ]
    assert sum(low) <= 36  # 20 expected


def test_the_kernel_sees_what_no_single_figure_shows() -> None:
    generator = np.random.default_rng(5)
    old = generator.multivariate_normal([0, 0], [[1, 0.9], [0.9, 1]], size=200)
    new = generator.multivariate_normal([0, 0], [[1, -0.9], [-0.9, 1]], size=200)
    assert kolmogorov_smirnov(old[:, 0], new[:, 0])[1] > 0.01
    found = kernel_discrepancy(old, new, generator)
    assert found.p_value < 0.001
    assert found.squared.low > 0


def test_the_kernel_raises_false_alarms_as_seldom_as_it_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(comparison, "PERMUTATIONS", 250)
    generator = np.random.default_rng(6)
    p_values = [
        kernel_discrepancy(
            generator.normal(size=(40, 3)), generator.normal(size=(60, 3)), generator
        ).p_value
        for _ in range(200)
    ]
    assert stats.kstest(p_values, "uniform").pvalue > 0.001
    assert sum(p <= 0.05 for p in p_values) <= 20


def test_the_interval_of_the_discrepancy_holds_the_true_one() -> None:
    generator = np.random.default_rng(7)

    def draw(count: int, centre: float) -> np.ndarray:
        return generator.normal(centre, 1, size=(count, 2))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "PERMUTATIONS", 0)
        true = kernel_discrepancy(draw(1500, 0), draw(1500, 1), generator).squared.estimate
        found = [
            kernel_discrepancy(draw(80, 0), draw(120, 1), generator).squared for _ in range(150)
        ]
    assert sum(one.low <= true <= one.high for one in found) >= 0.88 * 150


def test_p_values_are_corrected_for_their_number() -> None:
    assert adjusted([0.01, 0.02, 0.03, 0.5]) == pytest.approx([0.04, 0.04, 0.04, 0.5])
    assert adjusted([]) == []
