"""Whatever the site's own code makes, only what policy, memory and ledger allow leaves."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from client import pause as switch
from client.outbox import Opened, Outbox
from client.privacy.ledger import PrivacyLedger
from client.settings import SiteSettings
from common.audit_entries import Left, PlanDeclined, PolicyChanged
from common.errors import StoreError
from common.records import SiteReply
from common.signing import SigningKey
from common.update import ModelUpdate, Tensors
from common.wire import content_of, records_to_reply
from tests.client.outbox_rounds import PATIENT, Round, assert_held_back, audited, begin
from tests.client.rounds import change_policy, make_plan, make_site, signed


@pytest.mark.parametrize("which", ["trained", "bare", "scored", "forecast"])
def test_honest_replies_leave_and_are_written_down(
    request: pytest.FixtureRequest, which: str
) -> None:
    honest = cast(Round, request.getfixturevalue(which))
    records = honest.outbox.send(honest.reply, honest.request)
    assert honest.reply.refusal is None
    assert records_to_reply(records).receipt == honest.reply.receipt
    content = content_of(records)
    entry = audited(honest.settings)[-1]
    assert isinstance(entry, Left)
    assert (entry.bytes, entry.sha256) == (content.bytes, content.sha256)
    assert (entry.campaign, entry.nonce) == (honest.plan.campaign, honest.plan.nonce)
    assert entry.destination == honest.settings.superlink
    if honest.reply.receipt is not None:
        assert entry.update_digest == honest.receipt.update_digest
        assert entry.epsilon_campaign == honest.receipt.epsilon_campaign
        assert entry.epsilon_life == honest.receipt.epsilon_life


def test_acceptance_is_written_down_before_training(trained: Round) -> None:
    kinds = [entry.kind for entry in audited(trained.settings)]
    assert kinds[:2] == ["policy-changed", "plan-accepted"]


@pytest.mark.parametrize(
    "change",
    [
        {"paused": True},
        {"allowed_recipes": []},
        {"minimum_cell": 30},
        {"release_evaluation": False},
        {"declared_patients": 30},
        {"max_grad_norm": 0.01},
        {"min_noise_multiplier": 99.0},
    ],
)
def test_a_policy_that_changes_during_a_round_decides(
    trained: Round, change: dict[str, object]
) -> None:
    before = trained.settings.policy.read_bytes()
    try:
        change_policy(trained.settings, **change)
        assert_held_back(trained, trained.reply)
        with Outbox.open(trained.settings):
            assert isinstance(audited(trained.settings)[-1], PolicyChanged)
    finally:
        trained.settings.policy.write_bytes(before)
    assert trained.sent(trained.reply).update is not None


def test_a_pause_during_a_round_holds_its_update_back(trained: Round) -> None:
    switch.pause(trained.settings, by="anna")
    try:
        assert_held_back(trained, trained.reply)
    finally:
        switch.resume(trained.settings, by="anna")
    assert trained.sent(trained.reply).update is not None


def test_nothing_but_a_refusal_answers_an_unsigned_plan(trained: Round, base: Tensors) -> None:
    forged = trained.outbox.opened(signed(trained.plan, SigningKey.generate()), base)
    assert forged.signed_plan is None
    for request in (forged, Opened.now(), replace(trained.request, valid=False)):
        assert_held_back(replace(trained, request=request), trained.reply)
    trained.outbox.refuse("plan-signature", forged)
    declined = audited(trained.settings)[-2]
    assert declined == PlanDeclined(code="plan-signature")


def test_an_expired_plan_is_named_in_the_log(trained: Round, base: Tensors) -> None:
    with PrivacyLedger.open(trained.settings) as ledger:
        late = Outbox(trained.settings, ledger, clock=lambda: time.time() + 10_000)
        request = late.opened(signed(trained.plan), base)
        assert not request.valid
        late.refuse("plan-expired", request)
        assert_held_back(replace(trained, outbox=late, request=request), trained.reply)
    entry = audited(trained.settings)[-4]
    assert entry == PlanDeclined(
        code="plan-expired", campaign="private", round=1, nonce=trained.plan.nonce
    )


def test_a_plan_that_the_site_never_accepted_is_not_answered(
    trained: Round, outbox: Outbox, base: Tensors
) -> None:
    plan = make_plan(base=base, campaign="private", round=2)
    request = outbox.opened(signed(plan), base)
    receipt = trained.receipt.model_copy(update={"round": 2, "nonce": plan.nonce})
    update = ModelUpdate(
        replace(trained.update.binding, round=2, nonce=plan.nonce), trained.update.tensors
    )
    receipt = receipt.model_copy(update={"update_digest": update.digest})
    forged = SiteReply("north", receipt=receipt, update=update)
    assert_held_back(Round(trained.settings, outbox, plan, request, trained.reply), forged)


def test_a_ledger_that_was_cut_lets_nothing_out(tmp_path: Path, base: Tensors) -> None:
    site = make_site(tmp_path / "site", patients=4, holdout=0)
    with Outbox.open(site) as outbox:
        done = begin(site, outbox, make_plan(base=base), base)
        (site.data / "ledger-head.json").write_text('{"sequence": 9, "digest": "%s"}' % ("0" * 64))
        assert_held_back(done, done.reply)


@pytest.mark.parametrize("which", ["trained", "scored", "forecast"])
def test_an_exception_in_the_outbox_itself_leaks_nothing(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(PATIENT)

    round_ = cast(Round, request.getfixturevalue(which))
    monkeypatch.setattr("client.outbox.check_reply", fail)
    assert_held_back(round_, round_.reply)


def test_without_the_log_nothing_is_given_out(tmp_path: Path, base: Tensors) -> None:
    site = make_site(tmp_path / "site", patients=4, holdout=0)
    with Outbox.open(site) as outbox:
        done = begin(site, outbox, make_plan(base=base, evaluate=False), base)
        (site.data / "audit-head.json").write_text("{}")
        for send in (
            lambda: outbox.send(done.reply, done.request),
            lambda: outbox.refuse("no-cases", done.request),
            outbox.describe,
        ):
            with pytest.raises(StoreError):
                send()


def _send_for_ever(settings: SiteSettings, out: Path) -> None:
    with Outbox.open(settings) as outbox, out.open("ab", buffering=0) as sent:
        while True:
            records = outbox.describe()
            sent.write(content_of(records).sha256.encode() + b"\n")


def test_killed_at_any_moment_nothing_left_unwritten(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site", patients=0, holdout=0)
    out = tmp_path / "sent"
    out.touch()
    context = multiprocessing.get_context("fork")
    for pause in (0.0, 0.013, 0.031, 0.002):
        before = out.stat().st_size
        process = context.Process(target=_send_for_ever, args=(site, out))
        process.start()
        assert process.pid is not None
        deadline = time.monotonic() + 30
        while out.stat().st_size == before and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(pause)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    sent = out.read_bytes().splitlines()
    written = [entry for entry in audited(site) if isinstance(entry, Left)]
    assert len(sent) >= 4
    assert len(sent) <= len(written) <= len(sent) + 4


def test_a_round_on_either_database(tmp_path: Path, database_url: str, base: Tensors) -> None:
    site = make_site(
        tmp_path / "site", patients=4, holdout=4, minimum_cell=1, database_url=database_url
    )
    with Outbox.open(site) as outbox:
        done = begin(site, outbox, make_plan(base=base), base)
        assert done.sent(done.reply).update is not None
        done.outbox.refuse("no-cases", done.request)
    assert [e.kind for e in audited(site)] == [
        *("policy-changed", "plan-accepted", "left"),
        *("plan-refused", "left"),
    ]
