"""What a site says that it can afford, the coordinator takes: nothing is spent for nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.outbox import Outbox
from client.privacy.ledger import PrivacyLedger
from client.settings import SiteSettings
from common.plan import RoundPlan
from common.records import Receipt
from common.update import Tensors
from server.rounds.update_checks import Expected, check_reply
from tests.client.handled import answer, ledger_lines, refused
from tests.client.outbox_rounds import begin
from tests.client.rounds import make_plan, make_site


def taken(site: SiteSettings, plan: RoundPlan, base: Tensors) -> Receipt:
    """A round at the site, checked as the coordinator does."""
    with Outbox.open(site) as outbox:
        round_ = begin(site, outbox, plan, base)
        reply = round_.sent(round_.reply)
    assert reply.update is not None
    shapes = {name: array.shape for name, array in reply.update.tensors.items()}
    return check_reply(reply, Expected("north", plan, shapes))


def test_a_site_that_once_trained_without_privacy_still_takes_part(
    tmp_path: Path, base: Tensors
) -> None:
    site = make_site(tmp_path / "site", allow_without_privacy=True)
    study = taken(site, make_plan(epsilon=None, base=base, campaign="study", rounds=1), base)
    assert not study.life_unbounded  # nothing was promised
    asked = make_plan(purpose="preflight", campaign="asked", rounds=2)
    forecast = answer(site, asked, {}).forecast
    assert forecast is not None
    assert forecast.affordable
    assert forecast.life_unbounded
    for number in (1, 2):
        plan = make_plan(base=base, campaign="later", round=number, rounds=2)
        receipt = taken(site, plan, base)
        assert receipt.life_unbounded
        assert 0 < (receipt.epsilon_campaign or 0.0) <= 8.0


@pytest.mark.parametrize("limit", [0.25, 0.55])
def test_noise_beyond_what_the_coordinator_takes_is_never_promised(
    tmp_path: Path, base: Tensors, limit: float
) -> None:
    """At a quarter of an epsilon these rounds would need twice the noise that it takes."""
    site = make_site(tmp_path / "site", epsilon_campaign=limit)
    asked = make_plan(purpose="preflight", campaign="asked", rounds=2, steps=30, rate=1.0)
    forecast = answer(site, asked, {}).forecast
    assert forecast is not None
    plan = make_plan(base=base, rounds=2, steps=30, rate=1.0)
    if forecast.affordable:
        assert taken(site, plan, base).noise_multiplier == forecast.noise_multiplier
        return
    assert forecast.code == "budget-exhausted"
    assert refused(site, plan, base) == "budget-exhausted"
    assert ledger_lines(site) == []
    with PrivacyLedger.open(site) as ledger:
        assert ledger.spent(1e-5).life == 0.0
