"""From real sites' words to a campaign: asked once a day, told in bands, fired when enough."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flwr.app import Error, Message, RecordDict

from client.outbox import Outbox
from client.plan_memory import Limits
from client.privacy.ledger import PrivacyLedger
from client.privacy.ledger_lines import RoundRequest
from client.round_handler import RoundHandler
from client.settings import SiteSettings
from client.site_records import SiteRecords
from common.database import open_database
from common.errors import ConfigurationError
from common.signing import SigningKey
from common.wire import records_to_request
from server.registry.records import Campaign
from server.triggers.evaluator import TriggerEvaluator
from server.triggers.polling import StatusPolls
from server.triggers.rules import DriftRule, HandRule, NewCasesRule, Rule
from server.triggers.store import Trigger, TriggerPlan, TriggerStore
from tests.client.rounds import TOY, make_plan, make_site
from tests.fakes import FakeClock, FakeSite
from tests.server.campaigns import Coordinator


@dataclass
class RealSite(FakeSite):
    """A hospital's own round handler and outbox, behind a grid that is none."""

    settings: SiteSettings | None = None
    clock: FakeClock = field(default_factory=FakeClock)

    def answer(self, message: Message) -> RecordDict | Error | None:
        if message.metadata.group_id != "preflight":
            return super().answer(message)
        assert self.settings is not None
        request, base = records_to_request(message.content)
        with PrivacyLedger.open(self.settings) as ledger:
            outbox = Outbox(self.settings, ledger, clock=self.clock.now)
            opened = outbox.opened(request, base)
            reply = RoundHandler(self.settings, clock=self.clock.now).handle(request, base)
            return outbox.send(reply, opened)


class Federation:
    """Two real sites, and a coordinator whose triggers are looked at."""

    def __init__(self, folder: Path, **policy: object) -> None:
        self.sites = [
            RealSite(name, settings=make_site(folder / name, name=name, **policy))
            for name in ("north", "south")
        ]
        self.coordinator = Coordinator(folder, list(self.sites))
        key = SigningKey.read(self.coordinator.settings.keys / "plan.pem").verify_key.pem()
        for site in self.sites:
            site.clock = self.coordinator.clock
            assert site.settings is not None
            (site.settings.folder / "trust" / "plan-keys" / "real.pem").write_bytes(key)
        self.store = TriggerStore(open_database(self.coordinator.settings.database))

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.coordinator.clock.now(), UTC)

    def add(self, rule: Rule, name: str = "more") -> None:
        self.store.add(
            Trigger(
                name=name, rule=rule, recipe=TOY, plan=TriggerPlan(), starts=False,
                approved_by=None, created_at=self.now, looked_at=self.now, standing=None,
            )
        )  # fmt: skip

    def ask(self, trigger: Trigger) -> str:
        asks = self.coordinator.create(trigger.recipe, rounds=1, epsilon=8.0, only_preflight=True)
        assert self.coordinator.run_any(asks) is None
        return asks.id

    def polled(self) -> tuple[str, ...]:
        return StatusPolls(self.store, self.ask).look()

    def fired(self) -> tuple[str, ...]:
        return TriggerEvaluator(self.store, lambda t: self.create(t).id).look()

    def create(self, trigger: Trigger) -> Campaign:
        return self.coordinator.create(trigger.recipe)

    def signals(self) -> dict[tuple[str, str], int]:
        return {(s.site, s.kind): s.level for s in self.store.signals("toy")}


def test_new_cases_of_real_sites_fire_a_trigger_once(tmp_path: Path) -> None:
    federation = Federation(tmp_path, release_status=("new-cases", "drift"))
    federation.add(NewCasesRule(cases=35, sites=2))
    assert federation.fired() == ()
    assert len(federation.polled()) == 1
    assert federation.signals() == {("north", "new-cases"): 20, ("south", "new-cases"): 20}
    (campaign,) = federation.fired()
    (firing,) = federation.store.firings()
    assert firing.campaign == campaign
    assert "2 sites report at least 40" in firing.reason
    # While it runs nobody is asked, and what was told before it does not fire again after it.
    assert federation.polled() == ()
    federation.coordinator.registry.moves.cancel(campaign)
    assert federation.fired() == ()


@pytest.mark.parametrize("finishes", [True, False])
def test_cases_that_a_campaign_trained_on_fire_no_second_time(
    tmp_path: Path, finishes: bool
) -> None:
    federation = Federation(tmp_path, release_status=("new-cases",))
    federation.add(NewCasesRule(cases=35, sites=2))
    assert federation.fired() == ()
    federation.polled()
    (campaign,) = federation.fired()
    # Whoever is to start it asks what it would cost: the sites tell of the same cases again.
    federation.ask(federation.store.get("more"))
    registry = federation.coordinator.registry
    registry.start_campaign(campaign)
    if finishes:
        registry.finish_campaign(campaign)
    else:
        registry.moves.cancel(campaign)
    assert len(federation.fired()) == (0 if finishes else 1)
    assert federation.fired() == ()


def test_sites_that_trained_have_no_new_cases(tmp_path: Path) -> None:
    federation = Federation(tmp_path, release_status=("new-cases",))
    federation.add(NewCasesRule(cases=10))
    for site in federation.sites:
        assert site.settings is not None
        now = federation.coordinator.clock.now()
        with SiteRecords.open(site.settings) as records:
            plan = make_plan(campaign="older", now=int(now))
            records.plans.accept(plan, Limits(10, 10), now=now)
            request = RoundRequest(
                campaign="older", round=plan.round, nonce=plan.nonce, rounds_left=1,
                sampling_rate=0.1, steps=1, max_grad_norm=1.0,
            )  # fmt: skip
            line = records.ledger.reserve_without_privacy(request, delta=1e-5)
            records.ledger.outcome(line, "trained")
    federation.coordinator.clock.sleep(60)
    assert len(federation.polled()) == 1
    assert set(federation.signals().values()) == {0}
    assert federation.fired() == ()


def test_policies_that_list_nothing_leave_the_triggers_alone(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    federation.add(NewCasesRule(cases=1))
    assert len(federation.polled()) == 1
    assert federation.signals() == {}
    assert federation.fired() == ()


def test_what_sites_tell_before_a_campaign_that_trains_is_no_signal(tmp_path: Path) -> None:
    federation = Federation(tmp_path, release_status=("new-cases",))
    made = federation.coordinator
    campaign = made.create(TOY, rounds=1, epsilon=8.0, quorum=2)
    made.registry.record_forecasts(campaign.id, ())
    with pytest.raises(Exception):  # noqa: B017, PT011 - fake sites do not train this network
        made.run_any(campaign)
    assert federation.signals() == {}


def test_each_task_is_asked_once_a_day(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    federation.add(NewCasesRule(cases=1))
    federation.add(DriftRule(), name="drifting")
    federation.add(HandRule(), name="by-hand")
    asked: list[str] = []
    now = [datetime.now(UTC)]

    def create(trigger: Trigger) -> str:
        asked.append(trigger.name)
        campaign = federation.coordinator.create(trigger.recipe, only_preflight=True)
        federation.coordinator.registry.moves.cancel(campaign.id)
        return campaign.id

    polls = StatusPolls(federation.store, create, clock=lambda: now[0])
    for hours, total in ((0, 1), (0, 1), (23, 1), (2, 2), (-100, 3)):
        now[0] += timedelta(hours=hours)
        polls.look()
        assert len(asked) == total


def test_a_poll_that_cannot_be_made_is_tried_again_after_an_hour(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    federation.add(NewCasesRule(cases=1))
    tried, now = [0], [datetime.now(UTC)]

    def create(trigger: Trigger) -> str:
        tried[0] += 1
        raise ConfigurationError("No disk.")

    polls = StatusPolls(federation.store, create, clock=lambda: now[0])
    for minutes, total in ((0, 1), (1, 1), (60, 2)):
        now[0] += timedelta(minutes=minutes)
        assert polls.look() == ()
        assert tried[0] == total


def test_a_poll_keeps_no_schedule_waiting(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    federation.add(HandRule())
    federation.coordinator.create(TOY, only_preflight=True)
    trigger = federation.store.get("more")
    assert federation.store.begin(replace(trigger), "slot", "By hand.", now=federation.now)
    assert federation.store.newest_campaign("toy") is None
    assert federation.store.newest_poll("toy") is not None
