from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from client.cases.store import MIGRATIONS
from client.plan_memory import Limits, PlanMemory
from common.database import migrate, open_database
from common.errors import PlanRefused
from common.plan import RoundPlan
from tests.client.rounds import make_plan

NOW = 1_790_000_000
HOUR = 3600
LIMITS = Limits(rounds_per_day=100, evaluations_per_day=100)


@pytest.fixture
def memory(database_url: str) -> Iterator[PlanMemory]:
    engine = open_database(database_url)
    migrate(engine, MIGRATIONS)
    yield PlanMemory(engine)
    engine.dispose()


def code(memory: PlanMemory, plan: RoundPlan, *, now: float = NOW, limits: Limits = LIMITS) -> str:
    try:
        memory.accept(plan, limits, now=now)
    except PlanRefused as error:
        return error.code
    return "accepted"


@pytest.mark.parametrize("purpose", ["train", "evaluate", "preflight"])
def test_no_plan_twice(memory: PlanMemory, purpose: str) -> None:
    plan = make_plan(purpose=purpose, now=NOW)  # type: ignore[arg-type]
    assert code(memory, plan) == "accepted"
    assert code(memory, plan) == "plan-replayed"
    other = plan.model_copy(update={"campaign": "another", "round": 3})
    assert code(memory, other) == "plan-replayed"  # the nonce alone decides


def test_a_clock_that_is_set_back_revives_nothing(memory: PlanMemory) -> None:
    old = make_plan(campaign="never-sent", now=NOW)
    newer = make_plan(now=NOW + 2 * HOUR)
    assert code(memory, newer, now=NOW + 2 * HOUR) == "accepted"
    assert code(memory, old, now=NOW) == "plan-expired"


def test_rounds_of_a_campaign_only_go_up(memory: PlanMemory) -> None:
    assert code(memory, make_plan(round=2, now=NOW)) == "accepted"
    assert code(memory, make_plan(round=2, now=NOW)) == "accepted"  # asked again after a failure
    assert code(memory, make_plan(round=1, now=NOW)) == "plan-out-of-order"
    assert code(memory, make_plan(round=1, now=NOW, purpose="evaluate")) == "plan-out-of-order"
    assert code(memory, make_plan(round=1, now=NOW, campaign="another")) == "accepted"


def test_limits_a_day(memory: PlanMemory) -> None:
    limits = Limits(rounds_per_day=2, evaluations_per_day=1)

    def train(now: int) -> str:
        plan = make_plan(round=1, campaign=f"c{now}", now=now, evaluate=False)
        return code(memory, plan, now=now, limits=limits)

    def evaluate(now: int) -> str:
        return code(memory, make_plan(purpose="evaluate", now=now), now=now, limits=limits)

    assert [train(NOW), train(NOW + 1), train(NOW + 2)] == [*["accepted"] * 2, "rounds-used-up"]
    assert [evaluate(NOW), evaluate(NOW + 1)] == ["accepted", "evaluations-used-up"]
    later = NOW + 24 * HOUR + 10
    assert [train(later), evaluate(later)] == ["accepted", "accepted"]


def test_training_goes_on_without_scores(memory: PlanMemory) -> None:
    limits = Limits(rounds_per_day=9, evaluations_per_day=1)
    scores = [
        memory.accept(make_plan(round=number, now=NOW), limits, now=NOW).scores
        for number in (1, 2, 3)
    ]
    assert scores == [True, False, False]


def test_a_refused_plan_is_not_remembered(memory: PlanMemory) -> None:
    plan = make_plan(now=NOW)
    none = Limits(rounds_per_day=0, evaluations_per_day=0)
    assert code(memory, plan, limits=none) == "rounds-used-up"
    assert code(memory, plan) == "accepted"


def test_which_rounds_trained_on_a_task(memory: PlanMemory) -> None:
    for number in (1, 2):
        memory.accept(make_plan(round=number, now=NOW), LIMITS, now=NOW + number)
    memory.accept(make_plan(purpose="evaluate", round=2, now=NOW), LIMITS, now=NOW + 3)
    found = memory.training_rounds("toy")
    assert [(r.campaign, r.round) for r in found] == [("campaign", 1), ("campaign", 2)]
    assert found[1].accepted_at == datetime.fromtimestamp(NOW + 2, UTC)
    assert memory.training_rounds("other") == []


def test_of_two_at_once_one_goes_on(memory: PlanMemory) -> None:
    plan = make_plan(now=NOW)
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(code(memory, plan))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == ["accepted", *["plan-replayed"] * 7]
