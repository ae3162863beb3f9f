"""The coordinator writes down what it sent, what came, and what became of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import RecordDict
from sqlalchemy import text

from common.audit_chain import verify
from common.audit_entries import (
    CampaignMoved,
    CandidateMade,
    Entry,
    GateDecision,
    PlanSent,
    Released,
    ReplyRefused,
    ReplyTaken,
)
from common.errors import StoreError
from common.plan import RoundPlan
from common.records import SiteReply
from common.release import ModelFile, model_target
from common.wire import content_of, reply_to_records
from server.main import compose
from server.registry.registry import Registry
from tests.fakes import FakeSite, broken, refusing
from tests.server.campaigns import Coordinator


def entries(coordinator: Coordinator) -> list[Entry]:
    log = coordinator.registry.audit
    assert verify(log) == ()
    return [line.entry() for line in log.lines()]


def impostor(reply: SiteReply, _: RoundPlan) -> RecordDict:
    assert reply.receipt is not None
    receipt = reply.receipt.model_copy(update={"site": "other"})
    return reply_to_records(replace(reply, site="other", receipt=receipt))


def test_a_campaign_from_the_first_plan_to_the_verdict(tmp_path: Path) -> None:
    sent: list[RecordDict] = []

    def remember(reply: SiteReply, _: RoundPlan) -> RecordDict:
        sent.append(reply_to_records(reply))
        return sent[-1]

    sites = [FakeSite("north", behave=remember), FakeSite("south")]
    coordinator = Coordinator(tmp_path, sites)
    campaign = coordinator.create(rounds=2, epsilon=8.0)
    candidate = coordinator.run(campaign)
    found = entries(coordinator)
    asked = [e for e in found if isinstance(e, PlanSent)]
    nonces = [e.nonce for e in asked if e.site == "north"]
    plans = [plan.nonce for plan in sites[0].plans]  # the preflight is not among them
    assert nonces[-len(plans) :] == plans
    assert asked[0].purpose == "preflight"
    taken = [e for e in found if isinstance(e, ReplyTaken)]
    contents = {content_of(records).sha256 for records in sent}
    assert contents <= {e.sha256 for e in taken if e.site == "north"}
    updates = {c.receipt.update_digest for c in coordinator.registry.contributions(campaign.id)
               if c.receipt is not None}  # fmt: skip
    assert updates == {e.update_digest for e in taken}
    moves = [(e.action, e.state, e.epoch) for e in found if isinstance(e, CampaignMoved)]
    assert moves == [("take", "running", 1), ("finish", "finished", 1)]
    assert isinstance(found[-1], CampaignMoved)
    assert found[-3] == CandidateMade(
        campaign=campaign.id, candidate=candidate.id, model_digest=candidate.model_digest
    )
    decision = found[-2]
    assert isinstance(decision, GateDecision)
    assert decision.decision == candidate.state
    for entry in asked:  # the plan stands before its reply
        replies = [i for i, e in enumerate(found) if isinstance(e, ReplyTaken | ReplyRefused)
                   and e.nonce == entry.nonce]  # fmt: skip
        assert all(i > found.index(entry) for i in replies)


@pytest.mark.parametrize(
    ("behave", "code", "came"),
    [(refusing, "budget-spent", True), (impostor, "reply-site", True),
     (broken, "site-app-failed", False)],
)  # fmt: skip
def test_what_is_no_use_is_written_down_without_its_text(
    tmp_path: Path, behave: object, code: str, came: bool
) -> None:
    bad = FakeSite("bad", behave=behave)  # type: ignore[arg-type]
    coordinator = Coordinator(tmp_path, [FakeSite("north"), FakeSite("south"), bad])
    coordinator.run(coordinator.create(rounds=1))
    refused = [e for e in entries(coordinator) if isinstance(e, ReplyRefused)]
    assert refused
    assert {(e.site, e.code, e.sha256 is not None, e.bytes > 0) for e in refused} == {
        ("bad", code, came, came)
    }
    assert "jane" not in "".join(line.body for line in coordinator.registry.audit.lines())


def test_without_its_log_the_coordinator_asks_nobody(tmp_path: Path) -> None:
    north = FakeSite("north")
    coordinator = Coordinator(tmp_path, [north, FakeSite("south")])
    campaign = coordinator.create(rounds=1)
    coordinator.run(campaign)
    asked = len(north.plans)
    with coordinator.registry._engine.begin() as connection:
        connection.execute(text("DELETE FROM audit_log"))
    with pytest.raises(StoreError) as caught:
        coordinator.run(coordinator.create(rounds=1))
    assert caught.value.code == "audit-damaged"
    assert len(north.plans) == asked


def test_a_release_that_a_crash_kept_out_of_the_log_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator = Coordinator(tmp_path, [FakeSite("north"), FakeSite("south")])
    candidate = coordinator.run(coordinator.create(rounds=2, epsilon=8.0))
    assert candidate.state == "approved"
    file = ModelFile(name=model_target(candidate.model_digest), sha256="0" * 64, bytes=1)
    manifest = candidate.draft.released(1, file)
    with monkeypatch.context() as dying:
        dying.setattr(coordinator.registry.audit, "append", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            coordinator.registry.record_release(manifest)
    again = Registry.open(coordinator.settings)
    again.audit_releases()
    again.audit_releases()
    again.record_release(manifest)
    again.close()
    released = [e for e in entries(coordinator) if isinstance(e, Released)]
    assert [(e.version, e.campaign) for e in released] == [(1, candidate.campaign)]
    assert "audit_releases" in compose.__code__.co_names  # the service does so when it starts
