"""A scoring that was interrupted, or fell into an outage, is made again: nothing is lost by it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from flwr.app import Error, RecordDict

from common.errors import RoundFailed, StoreError
from common.plan import RoundPlan
from common.recipe import Recipe
from common.records import SiteReply
from common.update import Tensors
from common.wire import reply_to_records
from server.model_store import ModelStore
from server.registry.records import Campaign, Candidate
from server.rounds import final_candidate, scoring
from server.rounds.checkpoints import Checkpoints
from server.rounds.driver import campaign_folder
from server.rounds.exchange import Exchange
from server.rounds.exchange_records import Collected
from tests.fakes import FakeSite, broken, refusing, silent, toy_recipe
from tests.server.campaigns import Coordinator
from tests.server.registry.test_champions import record
from tests.server.rounds.buffered import buffered, ledgered
from tests.server.test_resume import Killed

Behaviour = Callable[[SiteReply, RoundPlan], RecordDict | Error | None]


def released(made: Coordinator) -> Candidate:
    candidate = made.run(made.create(rounds=1))
    record(made, candidate, 1)
    return candidate


def averaged() -> Recipe:
    """One whose last model is the average of the rounds': no checkpoint holds it."""
    return toy_recipe(rounds=4, server={"ema_decay": 0.5})


def outage(made: Coordinator, monkeypatch: pytest.MonkeyPatch, module: object) -> None:
    """Let no site be reached while that module has a model scored."""
    real = module.evaluate_at_sites  # type: ignore[attr-defined]

    def cut(*args: object, **named: object) -> object:
        made.grid.offline = set(made.grid.sites)
        try:
            return real(*args, **named)
        finally:
            made.grid.offline = set()

    monkeypatch.setattr(module, "evaluate_at_sites", cut)


def when_scoring(behave: Behaviour) -> Behaviour:
    def training_well(reply: SiteReply, plan: RoundPlan) -> RecordDict | Error | None:
        return behave(reply, plan) if plan.purpose == "evaluate" else reply_to_records(reply)

    return training_well


def states(made: Coordinator, campaign: Campaign) -> list[tuple[int, str]]:
    return [(r.number, r.state) for r in made.registry.rounds(campaign.id)]


@pytest.mark.parametrize("fault", ["no-room", "first-missing"])
def test_nothing_is_scored_at_the_end_that_could_not_be_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Each scoring counts at the sites, and a fault that lasts would use up what they allow."""
    made = Coordinator(tmp_path, [FakeSite("north"), FakeSite("south")])
    campaign = made.create(averaged(), rounds=4, early_stopping_rounds=3)
    real_save, real_load = ModelStore.save, ModelStore.load

    def save(store: ModelStore, tensors: Tensors, *, digest: str | None = None) -> str:
        trained = any(campaign_folder(made.settings, campaign.id).glob("000004-*"))
        if fault == "no-room" and trained:
            raise StoreError("No room.", code="store")
        return real_save(store, tensors, digest=digest)

    def load(store: ModelStore, digest: str) -> Tensors:
        begun = bool(made.sites["north"].plans)
        if begun and fault == "first-missing" and digest == campaign.initial_digest:
            raise StoreError("It is gone.", code="model-missing")
        return real_load(store, digest)

    with monkeypatch.context() as patch:
        patch.setattr(ModelStore, "save", save)
        patch.setattr(ModelStore, "load", load)
        with pytest.raises(StoreError):
            made.run(campaign)
    assert made.registry.campaign(campaign.id).state == "interrupted"
    for site in made.sites.values():
        assert [p.purpose for p in site.plans] == ["train"] * 4
    assert made.run(campaign).state == "approved"


@pytest.mark.parametrize("better", [True, False])
def test_of_the_models_that_were_scored_only_the_candidate_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, better: bool
) -> None:
    made = Coordinator(tmp_path, [FakeSite("north"), FakeSite("south")])
    campaign = made.create(averaged(), rounds=4, early_stopping_rounds=3)
    monkeypatch.setattr(final_candidate, "gain", lambda *_: None)
    monkeypatch.setattr(final_candidate, "_is_better", lambda *_: better)
    candidate = made.run(campaign)
    last, best = made.registry.rounds(campaign.id)[-2:]
    assert last.base_digest != best.base_digest
    assert candidate.model_digest == (best if better else last).base_digest
    kept = {path.stem for path in made.settings.models.iterdir()}
    assert kept == {campaign.initial_digest, candidate.model_digest}


def test_an_outage_at_the_last_scoring_costs_no_campaign(tmp_path: Path) -> None:
    digests = []
    for name in ("calm", "cut"):
        made = Coordinator(tmp_path / name, [FakeSite(site) for site in ("north", "south", "west")])
        campaign = made.create(rounds=2)
        if name == "cut":
            with pytest.MonkeyPatch.context() as patch:
                outage(made, patch, final_candidate)
                with pytest.raises(RoundFailed, match="not-connected") as caught:
                    made.run(campaign)
            assert caught.value.code == "quorum"
            assert made.registry.campaign(campaign.id).state == "failed"
            assert made.registry.candidates(campaign=campaign.id) == ()
            made.registry.moves.resume(campaign.id)
        candidate = made.run(campaign)
        assert candidate.state == "approved"
        assert states(made, campaign) == [(n, "finished") for n in (1, 2, 3)]
        trained = [p.round for p in made.sites["north"].plans if p.purpose == "train"]
        assert trained == [1, 2]
        digests.append(candidate.model_digest)
    assert digests[0] == digests[1]


def test_sites_that_hang_at_the_last_scoring_are_an_outage_and_sites_that_fail_are_not(
    tmp_path: Path,
) -> None:
    for behave, state in ((silent, "failed"), (broken, "finished")):
        made = Coordinator(tmp_path / state, [FakeSite("north"), FakeSite("south")])
        campaign = made.create(rounds=1)
        for site in made.sites.values():
            site.behave = when_scoring(behave)
        if state == "failed":
            with pytest.raises(RoundFailed, match="deadline"):
                made.run(campaign)
        else:
            assert made.run(campaign).state == "refused"
        assert made.registry.campaign(campaign.id).state == state


@pytest.mark.parametrize("hanging", [True, False])
def test_a_refusal_beside_an_outage_costs_no_campaign_that_the_others_could_have_judged(
    tmp_path: Path, hanging: bool
) -> None:
    """Of three sites two are needed: one refuses to score, and stays at that."""
    made = Coordinator(tmp_path, [FakeSite(site) for site in ("north", "south", "west")])
    campaign = made.create(rounds=1)
    made.sites["north"].behave = when_scoring(refusing)
    if hanging:
        made.sites["south"].behave = when_scoring(silent)
        with pytest.raises(RoundFailed, match=r"north \(budget-spent\), south \(deadline\)"):
            made.run(campaign)
        assert made.registry.campaign(campaign.id).state == "failed"
        made.sites["south"].behave = None
        made.registry.moves.resume(campaign.id)
    assert made.run(campaign).state == "approved"


def test_refusals_that_leave_no_quorum_are_the_gates_business_whoever_was_silent(
    tmp_path: Path,
) -> None:
    made = Coordinator(tmp_path, [FakeSite(site) for site in ("north", "south", "west")])
    campaign = made.create(rounds=1)
    for site, behave in (("north", refusing), ("south", silent), ("west", refusing)):
        made.sites[site].behave = when_scoring(behave)
    assert made.run(campaign).state == "refused"
    assert made.registry.campaign(campaign.id).state == "finished"


def test_an_outage_at_the_champions_scoring_comes_before_any_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Coordinator(tmp_path, [FakeSite("north"), FakeSite("south")])
    released(made)
    campaign = made.create(rounds=1, epsilon=8.0)
    already = len(made.sites["north"].plans)
    with monkeypatch.context() as patch:
        outage(made, patch, scoring)
        with pytest.raises(RoundFailed) as caught:
            made.run(campaign)
    assert caught.value.code == "quorum"
    assert made.registry.campaign(campaign.id).state == "failed"
    assert len(made.sites["north"].plans) == already
    made.registry.moves.resume(campaign.id)
    candidate = made.run(campaign)
    assert "champion-non-inferiority" in {c.name for c in candidate.draft.gate if c.passed}


def test_a_champion_that_changed_while_it_was_scored_locks_no_campaign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Coordinator(tmp_path, [FakeSite("north"), FakeSite("south")])
    first = released(made)
    campaign = made.create(rounds=2)

    def dying(*_: object) -> None:
        raise Killed  # scored, and nothing of it written down

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", dying)
        with pytest.raises(Killed):
            made.run(campaign)
    assert states(made, campaign) == [(0, "finished")]
    template = made.registry.campaign(first.campaign)
    between = made.registry.add_campaign(
        template.recipe, template.settings, initial_digest=first.model_digest, base_release=1
    )
    second = made.run(between)
    record(made, second, 2)
    made.run(campaign)
    champion = made.registry.rounds(campaign.id)[0]
    assert champion.base_digest == second.model_digest
    told = made.registry.contributions(campaign.id, number=0)
    now = {(c.site, c.code) for c in told if c.outcome == "accepted"}
    assert now == {("north", None), ("south", None)}
    assert all(
        c.receipt is not None and c.receipt.base_digest == second.model_digest
        for c in told
        if c.outcome == "accepted"
    )
    assert {c.code for c in told if c.outcome == "failed"} == {"answer-dropped"}


def test_sites_that_come_back_after_the_last_scoring_began_lock_no_campaign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two use up their turns, the last scoring is killed; two others connect, and train on."""
    made, _ = ledgered(tmp_path, 1.0, 1.0, 1.0, 1.0)
    made.grid.offline = {102, 103}
    campaign = buffered(made, size=3, rounds=5, site_rounds=4, round_deadline_seconds=900.0)
    real = Exchange.collect

    def dying(exchange: Exchange) -> Collected:
        if exchange._request.plan.purpose == "evaluate":
            raise Killed
        return real(exchange)

    with monkeypatch.context() as patch:
        patch.setattr(Exchange, "collect", dying)
        with pytest.raises(Killed):
            made.run(campaign)
    begun = made.registry.rounds(campaign.id)[-1]
    assert (begun.purpose, begun.state) == ("evaluate", "running")
    made.grid.offline = set()
    candidate = made.run(campaign)
    scored = made.registry.rounds(campaign.id)[-1]
    assert (scored.number, scored.state) == (begun.number, "finished")
    assert scored.base_digest == candidate.model_digest != begun.base_digest
