"""What a preflight says is what the ledger would do."""

from pathlib import Path

import pytest

from client.policy import SitePolicy
from client.privacy.forecast import forecast_plan, round_budget, round_request
from client.privacy.ledger import MIGRATIONS, PrivacyLedger
from client.privacy.ledger_lines import LedgerLine
from common.database import migrate, open_database
from common.errors import PrivacyRefused
from common.plan import RoundPlan
from tests.client.rounds import make_plan

POLICY = SitePolicy(declared_patients=1000, delta=1e-5, allow_without_privacy=True)


@pytest.fixture
def ledger(tmp_path: Path) -> PrivacyLedger:
    engine = open_database(f"sqlite:///{tmp_path / 'site.db'}")
    migrate(engine, MIGRATIONS)
    return PrivacyLedger(engine)


def reserve(ledger: PrivacyLedger, plan: RoundPlan, policy: SitePolicy = POLICY) -> LedgerLine:
    request = round_request(plan, policy)
    if plan.privacy.epsilon is None:
        return ledger.reserve_without_privacy(request, delta=policy.delta)
    return ledger.reserve(request, round_budget(plan.privacy.epsilon, policy))


def assert_foretold(
    ledger: PrivacyLedger, plan: RoundPlan, code: str, policy: SitePolicy = POLICY
) -> None:
    """The forecast names what the reservation then fails by."""
    told = forecast_plan(ledger, plan, policy, site="north")
    with pytest.raises(PrivacyRefused) as caught:
        reserve(ledger, plan, policy)
    assert (told.affordable, told.code) == (False, caught.value.code) == (False, code)
    assert told.noise_multiplier is None
    assert told.delta == (policy.delta if plan.privacy.epsilon is not None else None)


@pytest.mark.parametrize("epsilon", [8.0, None])
def test_another_delta_is_foretold(ledger: PrivacyLedger, epsilon: float | None) -> None:
    reserve(ledger, make_plan(campaign="a"))
    changed = POLICY.model_copy(update={"delta": 2e-5})
    plan = make_plan(campaign="b", epsilon=epsilon)
    assert_foretold(ledger, plan, "delta-changed", changed)
    assert forecast_plan(ledger, plan, POLICY, site="north").affordable


@pytest.mark.parametrize(("first", "second"), [(None, 8.0), (8.0, None)])
def test_a_campaign_is_with_or_without_privacy_not_both(
    ledger: PrivacyLedger, first: float | None, second: float | None
) -> None:
    reserve(ledger, make_plan(campaign="a", round=1, epsilon=first))
    assert_foretold(ledger, make_plan(campaign="a", round=2, epsilon=second), "privacy-changed")
    assert len(ledger.entries()) == 1
    reserve(ledger, make_plan(campaign="a", round=2, epsilon=first))
    reserve(ledger, make_plan(campaign="b", round=1, epsilon=second))
