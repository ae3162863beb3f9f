import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from client.cases.tables import Base
from client.privacy.accounting import Budget, Spend, epsilon
from client.privacy.ledger import MIGRATIONS, PrivacyLedger
from client.privacy.ledger_lines import LedgerLine, RoundRequest
from common.database import migrate, open_database
from common.errors import PlanRefused, PrivacyRefused, StoreError

DELTA = 1e-5
BUDGET = Budget(epsilon_campaign=8.0, epsilon_life=9.0, delta=DELTA, min_noise_multiplier=0.5)


def request(campaign: str = "a", number: int = 1, **changes: object) -> RoundRequest:
    fields: dict[str, object] = {
        "campaign": campaign,
        "round": number,
        "nonce": secrets.token_hex(32),
        "rounds_left": 3,
        "sampling_rate": 0.05,
        "steps": 100,
        "max_grad_norm": 1.0,
        **changes,
    }
    return RoundRequest(**fields)  # type: ignore[arg-type]


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_database(database_url)
    migrate(engine, MIGRATIONS)
    yield engine
    engine.dispose()


@pytest.fixture
def ledger(engine: Engine, tmp_path: Path) -> PrivacyLedger:
    return PrivacyLedger(engine, anchor=tmp_path / "head.json")


def recomputed(lines: tuple[LedgerLine, ...], campaign: str | None = None) -> float:
    """Epsilon straight from the columns, sharing nothing with the ledger's own way."""
    rows = [
        Spend(line.noise_multiplier, line.sampling_rate, line.steps)
        for line in lines
        if line.kind == "reserve" and campaign in (None, line.campaign)
    ]
    return epsilon(rows, DELTA, kind="prv")


def test_a_campaign_stays_within_its_target_and_uses_it(ledger: PrivacyLedger) -> None:
    for number in range(1, 6):
        line = ledger.reserve(request(number=number, rounds_left=6 - number), BUDGET)
        ledger.outcome(line, "trained")
    spent = ledger.spent(DELTA)
    assert 7.9 < spent.campaigns["a"] <= 8.0
    assert spent.life == spent.campaigns["a"]
    prv = ledger.spent(DELTA, kind="prv")
    assert prv.life == pytest.approx(recomputed(ledger.entries()))
    assert prv.life < spent.life
    assert ledger.verify_chain() == 10


def test_two_campaigns_share_one_life(ledger: PrivacyLedger) -> None:
    for campaign in ("a", "b"):
        for number in (1, 2, 3):
            ledger.reserve(request(campaign, number, rounds_left=4 - number), BUDGET)
    spent = ledger.spent(DELTA)
    assert spent.campaigns["a"] <= 8.0
    assert spent.campaigns["b"] <= 8.0
    assert 8.9 < spent.life <= 9.0
    with pytest.raises(PrivacyRefused) as caught:
        ledger.reserve(request("c", sampling_rate=0.5, steps=500), BUDGET)
    assert caught.value.code == "budget-exhausted"
    assert len(ledger.entries()) == 6  # a refusal leaves no line


def test_failure_gives_nothing_back(ledger: PrivacyLedger) -> None:
    line = ledger.reserve(request(), BUDGET)
    before = ledger.spent(DELTA).life
    ledger.outcome(line, "update-not-finite")
    assert ledger.spent(DELTA).life == before > 0
    with pytest.raises(PlanRefused):
        ledger.outcome(line, "trained")
    assert [e.outcome for e in ledger.entries()] == [None, "update-not-finite"]


def test_a_plan_is_accepted_once(ledger: PrivacyLedger) -> None:
    first = request()
    ledger.reserve(first, BUDGET)
    for again in (first, request(), request(number=2, nonce=first.nonce)):
        with pytest.raises(PlanRefused) as caught:
            ledger.reserve(again, BUDGET)
        assert caught.value.code == "plan-replayed"
    with pytest.raises(PlanRefused):
        ledger.reserve_without_privacy(first, delta=DELTA)
    assert len(ledger.entries()) == 1


def test_a_round_without_privacy_ends_the_guarantee_for_life(ledger: PrivacyLedger) -> None:
    ledger.reserve(request("a"), BUDGET)
    before = ledger.spent(DELTA)
    assert before.guaranteed_life == before.life
    ledger.reserve_without_privacy(request("b"), delta=DELTA)
    after = ledger.spent(DELTA)
    assert after.rounds_without_privacy == 1
    assert after.guaranteed_life is None
    assert after.campaigns == {"a": before.life, "b": 0.0}


def test_delta_is_for_life(ledger: PrivacyLedger) -> None:
    ledger.reserve(request(), BUDGET)
    with pytest.raises(PrivacyRefused) as caught:
        ledger.reserve(request(number=2), Budget(8.0, 9.0, 1e-6, 0.5))
    assert caught.value.code == "delta-changed"


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE privacy_ledger SET noise_multiplier = 99 WHERE sequence = 1",
        "UPDATE privacy_ledger SET steps = 1 WHERE sequence = 3",
        "UPDATE privacy_ledger SET kind = 'outcome', outcome = 'x' WHERE sequence = 3",
        "UPDATE privacy_ledger SET outcome = 'trained' WHERE sequence = 1",
        "UPDATE privacy_ledger SET written_at = '2020-01-01 00:00:00' WHERE sequence = 2",
        "DELETE FROM privacy_ledger WHERE sequence = 2",
        "DELETE FROM privacy_ledger WHERE sequence = 3",  # the tail: only the anchor shows it
        "DELETE FROM privacy_ledger",
    ],
)
def test_a_changed_ledger_stops_everything(
    ledger: PrivacyLedger, engine: Engine, change: str
) -> None:
    for number in (1, 2, 3):
        ledger.reserve(request(number=number), BUDGET)
    assert ledger.verify_chain() == 3
    with engine.begin() as connection:
        connection.execute(text(change))
    for action in (ledger.verify_chain, lambda: ledger.reserve(request(number=4), BUDGET)):
        with pytest.raises(PrivacyRefused) as caught:
            action()
        assert caught.value.code == "ledger-damaged"


def test_an_unreadable_anchor_stops_everything(ledger: PrivacyLedger, tmp_path: Path) -> None:
    ledger.reserve(request(), BUDGET)
    (tmp_path / "head.json").write_text("{}")
    with pytest.raises(PrivacyRefused) as caught:
        ledger.reserve(request(number=2), BUDGET)
    assert caught.value.code == "ledger-damaged"


def test_a_missing_anchor_stops_everything_once_a_round_was_trained(
    ledger: PrivacyLedger, tmp_path: Path
) -> None:
    first = ledger.reserve(request(number=1), BUDGET)
    (tmp_path / "head.json").unlink()  # as if killed between the commit and the anchor
    assert ledger.verify_chain() == 1
    ledger.outcome(first, "trained")
    (tmp_path / "head.json").unlink()
    with pytest.raises(PrivacyRefused) as caught:
        ledger.reserve(request(number=2), BUDGET)
    assert caught.value.code == "ledger-damaged"
    with pytest.raises(PrivacyRefused):
        ledger.verify_chain()


def test_an_anchor_that_lags_behind_is_harmless(engine: Engine, tmp_path: Path) -> None:
    anchored = PrivacyLedger(engine, anchor=tmp_path / "head.json")
    anchored.reserve(request(number=1), BUDGET)
    PrivacyLedger(engine).reserve(request(number=2), BUDGET)  # as if killed before the anchor
    anchored.reserve(request(number=3), BUDGET)
    assert anchored.verify_chain() == 3


def test_at_once_they_never_spend_more_than_a_life(database_url: str, tmp_path: Path) -> None:
    """Eight writers with connections of their own; each alone could take most of what is left."""
    engine = open_database(database_url)
    migrate(engine, MIGRATIONS)
    engine.dispose()

    def spend(index: int) -> str:
        own = open_database(database_url)
        try:
            one = PrivacyLedger(own, anchor=tmp_path / "head.json")
            one.reserve(request(f"campaign-{index}", rounds_left=1), BUDGET)
        except PrivacyRefused as error:
            return error.code
        finally:
            own.dispose()
        return "reserved"

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(spend, range(8)))
    ledger = PrivacyLedger(open_database(database_url), anchor=tmp_path / "head.json")
    assert set(results) <= {"reserved", "budget-exhausted"}
    assert results.count("reserved") == ledger.verify_chain() >= 2
    assert ledger.spent(DELTA).life <= 9.0


def test_one_plan_many_times_at_once_is_accepted_once(database_url: str) -> None:
    engine = open_database(database_url)
    migrate(engine, MIGRATIONS)
    plan = request()

    def once(_: int) -> str:
        try:
            PrivacyLedger(engine).reserve(plan, BUDGET)
        except PlanRefused as error:
            return error.code
        return "reserved"

    with ThreadPoolExecutor(4) as pool:
        results = sorted(pool.map(once, range(4)))
    engine.dispose()
    assert results == ["plan-replayed"] * 3 + ["reserved"]


def test_times_survive_the_database(engine: Engine) -> None:
    moment = datetime(2026, 3, 29, 1, 59, 59, 123457, tzinfo=UTC) + timedelta(hours=1)
    ledger = PrivacyLedger(engine, clock=lambda: moment)
    ledger.reserve(request(), BUDGET)
    assert ledger.entries()[0].written_at == moment
    assert ledger.verify_chain() == 1


def test_without_a_database_there_is_a_clear_error(tmp_path: Path) -> None:
    ledger = PrivacyLedger(open_database(f"sqlite:///{tmp_path / 'empty.db'}"))
    with pytest.raises(StoreError):
        ledger.reserve(request(), BUDGET)


@given(
    rounds=st.lists(
        st.tuples(
            st.sampled_from("ab"),
            st.integers(1, 6),
            st.sampled_from([0.05, 0.2]),
            st.sampled_from([20, 80]),
            st.sampled_from(["trained", "crash", "out-of-memory"]),
        ),
        max_size=9,
    ),
    target=st.sampled_from([0.5, 2.0, 8.0]),
    life=st.sampled_from([1.0, 6.0]),
)
@settings(max_examples=6, deadline=None)
def test_whatever_happens_the_targets_hold(
    rounds: list[tuple[str, int, float, int, str]], target: float, life: float
) -> None:
    """Plans of two campaigns in any order: skipped, repeated, crashing, q and steps changing."""
    engine = open_database("sqlite://")
    Base.metadata.create_all(engine)
    ledger = PrivacyLedger(engine)
    budget = Budget(target, life, DELTA, 1.0)
    accepted = 0
    refused: set[str] = set()
    for campaign, number, q, steps, outcome in rounds:
        wanted = request(campaign, number, rounds_left=7 - number, sampling_rate=q, steps=steps)
        try:
            line = ledger.reserve(wanted, budget)
        except (PrivacyRefused, PlanRefused) as error:
            refused.add(error.code)
            continue
        accepted += 1
        if outcome != "crash":
            ledger.outcome(line, outcome)
        assert line.noise_multiplier >= 1.0
    assert refused <= {"budget-exhausted", "plan-replayed"}
    spent = ledger.spent(DELTA)
    assert spent.life <= life
    assert all(value <= target for value in spent.campaigns.values())
    lines = ledger.entries()
    assert sum(line.kind == "reserve" for line in lines) == accepted
    if accepted:
        rdp = epsilon([line.spend for line in lines if line.spend is not None], DELTA)
        assert rdp == spent.life > 0
    ledger.verify_chain()
    engine.dispose()
