"""Plans of buffered rounds, held against a real site's ledger and memory of plans."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.plan_memory import Limits, PlanMemory
from client.policy import SitePolicy
from client.privacy.forecast import forecast_plan, round_budget, round_request
from client.privacy.ledger import MIGRATIONS, PrivacyLedger
from common.database import migrate, open_database
from common.errors import PlanRefused
from tests.server.rounds.buffered import accepted, buffered, ledgered
from tests.server.test_resume import Killed

EPSILON = 4.0
POLICY = SitePolicy(declared_patients=1000, delta=1e-5, epsilon_campaign=EPSILON)


@pytest.fixture
def site(tmp_path: Path) -> tuple[PrivacyLedger, PlanMemory]:
    engine = open_database(f"sqlite:///{tmp_path / 'site.db'}")
    migrate(engine, MIGRATIONS)
    return PrivacyLedger(engine), PlanMemory(engine)


def test_a_quick_and_a_slow_site_both_stay_within_what_was_forecast(
    tmp_path: Path, site: tuple[PrivacyLedger, PlanMemory]
) -> None:
    ledger, memory = site
    made, behaviours = ledgered(tmp_path, 1.0, 1.0, 9.0)
    campaign = buffered(made, rounds=6, site_rounds=9, epsilon=EPSILON)
    cut = behaviours["a"]

    def killing(reply: object, plan: object) -> object:
        if len(cut.trained) == 4:
            made.sites["a"].behave = cut
            raise Killed
        return cut(reply, plan)  # type: ignore[arg-type]

    made.sites["a"].behave = killing  # type: ignore[assignment]
    with pytest.raises(Killed):
        made.run(campaign)
    made.run(campaign)
    plans = made.sites["a"].plans
    budget = round_budget(EPSILON, POLICY)
    told = forecast_plan(ledger, plans[0], POLICY, site="a")
    assert told.affordable
    assert told.rounds == 9
    spent: list[float] = []
    repeated: list[str] = []
    for plan in plans:
        memory.accept(plan, Limits(100, 100), now=float(plan.issued_at))
        if plan.purpose != "train":
            continue
        try:
            ledger.reserve(round_request(plan, POLICY), budget)
        except PlanRefused as error:  # asked again after the kill: the kept reply answers it
            repeated.append(error.code)
            continue
        spent.append(ledger.spent(POLICY.delta).campaigns[campaign.id])
    assert repeated == ["plan-replayed"]
    assert len(spent) == len(set(behaviours["a"].trained))
    assert spent == sorted(spent)
    assert spent[-1] <= EPSILON
    assert told.epsilon_campaign is not None
    assert spent[-1] <= told.epsilon_campaign * (1 + 1e-6)
    sigmas = {line.noise_multiplier for line in ledger.entries() if line.kind == "reserve"}
    assert max(sigmas) - min(sigmas) < 0.01, "every turn is noised for all that are budgeted"


def test_a_site_that_comes_when_the_others_are_used_up_trains_for_nothing_no_more(
    tmp_path: Path,
) -> None:
    """The two that are used up make up no quorum with it: it is asked nothing."""
    made, behaviours = ledgered(tmp_path, 1.0, 1.0, 1.0)
    made.grid.offline = {102}
    sleep = made.clock.sleep

    def come_late(seconds: float) -> None:
        sleep(seconds)
        if all(len(behaviours[name].trained) == 4 for name in "ab"):
            made.grid.offline = set()

    made.clock.sleep = come_late  # type: ignore[method-assign]
    campaign = buffered(made, size=3, rounds=10, site_rounds=4, round_deadline_seconds=900.0)
    candidate = made.run(campaign)
    assert behaviours["c"].trained == []
    assert {c.site for c in accepted(made, campaign)} == {"a", "b"}
    assert candidate.draft.lineage.rounds == 2
    told = made.registry.contributions(campaign.id, number=3)
    assert {c.site for c in told if c.code == "site-rounds-used-up"} == {"a", "b"}
