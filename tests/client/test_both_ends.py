"""What a site says that it can afford, the coordinator takes: nothing is spent for nothing."""

from __future__ import annotations

from pathlib import Path

from client.outbox import Outbox
from client.settings import SiteSettings
from common.plan import RoundPlan
from common.records import Receipt
from common.update import Tensors
from server.rounds.update_checks import Expected, check_reply
from tests.client.handled import answer
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
