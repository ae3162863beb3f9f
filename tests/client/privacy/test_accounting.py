import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import RDPAccountant
from opacus.accountants.analysis.rdp import compute_rdp

from client.privacy import accounting
from client.privacy.accounting import (
    Budget,
    Spend,
    epsilon,
    noise_multiplier_for,
    public_patients,
)
from common.errors import PrivacyRefused
from common.records import MAXIMUM_NOISE_MULTIPLIER

DELTA = 1e-5
Q = 64 / 2000


def _solve(target: float, **changes: object) -> float:
    arguments: dict[str, object] = {
        "campaign": [],
        "life": [],
        "sampling_rate": Q,
        "steps": 32,
        "rounds_left": 20,
        "budget": Budget(target, 1000.0, DELTA, 0.3),
        **changes,
    }
    return noise_multiplier_for(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(("target", "sigma"), [(1, 3.425), (3, 1.458), (8, 0.860)])
def test_known_noise_multipliers(target: float, sigma: float) -> None:
    # N=2000, batch 64, 20 rounds of one epoch: docs/adr, found independently with Opacus' solver.
    assert _solve(target) == sigma


@pytest.mark.parametrize(("sigma", "prv"), [(3.193, 1.0), (1.375, 3.0), (0.821, 8.0)])
def test_known_prv_epsilons(sigma: float, prv: float) -> None:
    assert epsilon([Spend(sigma, Q, 640)], DELTA, kind="prv") == pytest.approx(prv, abs=0.03)


def test_calibrating_one_round_at_a_time_would_spend_far_more() -> None:
    sigma = _solve(3.0, rounds_left=1)
    assert epsilon([Spend(sigma, Q, 640)], DELTA) > 8


@given(
    st.lists(
        st.tuples(
            st.floats(0.7, 20), st.sampled_from([0.001, 0.05, 0.3, 1.0]), st.integers(0, 200)
        ),
        max_size=4,
    )
)
@settings(max_examples=15, deadline=None)
def test_epsilon_is_that_of_opacus(entries: list[tuple[float, float, int]]) -> None:
    accountant = RDPAccountant()
    accountant.history = [e for e in entries if e[2]]
    ours = epsilon([Spend(*e) for e in entries], DELTA)
    assert ours == pytest.approx(max(0.0, accountant.get_epsilon(DELTA)), rel=1e-9, abs=1e-9)


def test_what_stands_in_for_an_order_is_never_less() -> None:
    for sigma in (0.6, 2.0, 30.0):
        exact = compute_rdp(q=0.05, noise_multiplier=sigma, steps=1, orders=list(accounting.ORDERS))
        for coarse in (True, False):
            bound = accounting._rdp_of_one_step(sigma, 0.05, coarse)
            assert (bound >= exact * (1 - 1e-9)).all()
    # A campaign that spent at low orders leaves room for one with much noise (whole orders only).
    spent = [Spend(0.5, 0.05, 10)]
    alone, both = epsilon(spent, DELTA), epsilon([*spent, Spend(100.0, 0.05, 10)], DELTA)
    assert alone <= both <= alone + 0.01


def test_nothing_spent_costs_nothing() -> None:
    assert epsilon([], DELTA) == 0
    assert epsilon([Spend(1.0, 0.5, 0)], DELTA, kind="prv") == 0


@given(
    target=st.floats(0.3, 12),
    life=st.floats(0.3, 20),
    q=st.sampled_from([0.02, 0.3, 1.0]),
    steps=st.integers(1, 40),
    rounds=st.integers(1, 30),
    spent=st.lists(st.tuples(st.sampled_from([0.7, 4.0]), st.integers(1, 30)), max_size=2),
)
@settings(max_examples=8, deadline=None)
def test_the_solution_fits_and_is_the_smallest(
    target: float, life: float, q: float, steps: int, rounds: int, spent: list[tuple[float, int]]
) -> None:
    before = [Spend(sigma, q, n) for sigma, n in spent]
    budget = Budget(target, life, DELTA, 1.0)

    def fits(sigma: float) -> bool:
        entry = Spend(sigma, q, steps * rounds)
        return epsilon([entry], DELTA) <= target and epsilon([*before, entry], DELTA) <= life

    arguments = {"campaign": [], "life": before, "sampling_rate": q, "steps": steps}
    try:
        sigma = noise_multiplier_for(**arguments, rounds_left=rounds, budget=budget)  # type: ignore[arg-type]
    except PrivacyRefused:
        assert not fits(MAXIMUM_NOISE_MULTIPLIER)
        return
    assert sigma >= 1.0
    assert fits(sigma)
    if sigma - 0.001 >= 1.0:
        assert not fits(round((sigma - 0.001) * 1000) / 1000)


@given(
    target=st.floats(0.05, 1.0),
    q=st.sampled_from([0.05, 0.2, 1.0]),
    rounds=st.integers(1, 400),
    guess=st.none() | st.floats(0.5, 300),
)
@settings(max_examples=25, deadline=None)
def test_never_more_noise_than_the_coordinator_takes(
    target: float, q: float, rounds: int, guess: float | None
) -> None:
    try:
        sigma = _solve(target, sampling_rate=q, steps=10, rounds_left=rounds, guess=guess)
    except PrivacyRefused:
        entry = Spend(MAXIMUM_NOISE_MULTIPLIER, q, 10 * rounds)
        assert epsilon([entry], DELTA) > target
        return
    assert sigma <= MAXIMUM_NOISE_MULTIPLIER
    assert epsilon([Spend(sigma, q, 10 * rounds)], DELTA) <= target


@pytest.mark.parametrize("guess", [0.5, 0.859, 0.86, 0.861, 150.0])
def test_a_guess_changes_nothing_but_the_time(guess: float) -> None:
    assert _solve(8.0, guess=guess) == 0.860


def test_never_less_noise_than_the_policy_wants() -> None:
    assert _solve(500.0, budget=Budget(500.0, 1000.0, DELTA, 0.777)) == 0.777


def test_a_spent_life_is_refused() -> None:
    with pytest.raises(PrivacyRefused) as caught:
        _solve(8.0, life=[Spend(0.86, Q, 640)], budget=Budget(8.0, 7.99, DELTA, 0.5))
    assert caught.value.code == "budget-exhausted"


def test_what_cannot_be_bounded_is_infinite_and_refused() -> None:
    assert epsilon([Spend(0.3, math.nextafter(1.0, 0.0), 10**9)], DELTA) > 1e6
    with pytest.raises(PrivacyRefused):
        _solve(8.0, sampling_rate=1.0, steps=10_000, rounds_left=100_000)


def test_prv_of_many_entries_is_still_an_upper_bound() -> None:
    entries = [Spend(2.0 + i / 1000, 0.05, 1) for i in range(40)]
    merged = accounting._coarsen(accounting._merge(entries))
    assert len(merged) <= accounting.PRV_ENTRIES
    assert sum(merged.values()) == 40
    exact = epsilon([Spend(2.0, 0.05, 40)], DELTA, kind="prv")
    assert epsilon(entries, DELTA, kind="prv") <= exact + 0.02
    assert epsilon(entries, DELTA, kind="prv") >= epsilon(
        [Spend(2.04, 0.05, 40)], DELTA, kind="prv"
    )


def test_public_patients_hides_the_exact_number() -> None:
    assert public_patients(0) == 0
    told = [public_patients(n) for n in range(1, 20_000)]
    assert told == sorted(told)
    for number, public in enumerate(told, start=1):
        assert abs(public - number) <= max(4, 0.06 * number)
    assert len(set(told)) < 90
