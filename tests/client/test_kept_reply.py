"""A round that is asked for again: the same update leaves again, and nothing is spent twice."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.kept_reply import keep_reply, kept_reply
from client.outbox import Outbox
from client.privacy.ledger import PrivacyLedger
from client.round_handler import RoundHandler
from client.settings import SiteSettings
from client.withdrawal import withdraw_patient
from common.compression import compress
from common.plan import RoundPlan
from common.records import SiteReply
from common.update import ModelUpdate, Tensors, tensors_digest
from common.wire import records_to_reply
from tests.client.rounds import base_tensors, make_plan, make_site, signed


def no_test(*_: object, **__: object) -> None:
    """Stands in for the gradient self-test, which has tests of its own."""


@pytest.fixture(scope="module")
def base() -> Tensors:
    return base_tensors()


@pytest.fixture
def site(tmp_path: Path) -> SiteSettings:
    return make_site(tmp_path / "site")


def ask(site: SiteSettings, plan: RoundPlan, base: Tensors) -> SiteReply:
    """What leaves the site, the outbox's checks and all."""
    with Outbox.open(site) as outbox:
        request = outbox.opened(signed(plan), base)
        reply = RoundHandler(site, self_test=no_test).handle(signed(plan), base)
        return records_to_reply(outbox.send(reply, request))


def code(reply: SiteReply) -> str | None:
    return reply.refusal.code if reply.refusal is not None else None


def kept_file(site: SiteSettings) -> Path:
    return site.data / "newest-reply.safetensors"


def test_a_lost_answer_is_sent_again_and_spends_nothing(site: SiteSettings, base: Tensors) -> None:
    first = ask(site, make_plan(base=base), base)
    plan = make_plan(base=base)
    second = ask(site, plan, base)
    assert first.update is not None
    assert second.update is not None
    assert second.receipt is not None
    assert first.receipt is not None
    for name, array in first.update.tensors.items():
        np.testing.assert_array_equal(array, second.update.tensors[name])
    assert second.update.binding.nonce == second.receipt.nonce == plan.nonce
    assert second.receipt.epsilon_campaign == first.receipt.epsilon_campaign
    assert second.evaluation == first.evaluation
    with PrivacyLedger.open(site) as ledger:
        assert [line.kind for line in ledger.entries()] == ["reserve", "outcome"]
    assert stat.S_IMODE(kept_file(site).stat().st_mode) == 0o600


@pytest.mark.parametrize("changed", [{"clip": 0.5}, {"steps": 1}, {"rounds": 4}])
def test_another_request_for_the_round_is_refused(
    site: SiteSettings, base: Tensors, changed: dict[str, int]
) -> None:
    assert ask(site, make_plan(base=base), base).update is not None
    assert code(ask(site, make_plan(base=base, **changed), base)) == "plan-replayed"  # type: ignore[arg-type]


def test_another_base_model_is_refused(site: SiteSettings, base: Tensors) -> None:
    assert ask(site, make_plan(base=base), base).update is not None
    other = {name: np.array(array) for name, array in base.items()}
    next(a for a in other.values() if a.dtype == np.float32 and a.ndim).flat[0] += 1
    assert code(ask(site, make_plan(base=other), other)) == "plan-replayed"


def test_a_damaged_or_forgotten_reply_is_not_sent(site: SiteSettings, base: Tensors) -> None:
    ask(site, make_plan(base=base), base)
    data = bytearray(kept_file(site).read_bytes())
    data[-1] ^= 1
    kept_file(site).write_bytes(data)
    assert code(ask(site, make_plan(base=base), base)) == "plan-replayed"


def test_a_withdrawn_patient_leaves_no_reply_to_send(site: SiteSettings, base: Tensors) -> None:
    ask(site, make_plan(base=base), base)
    withdraw_patient(site, "train-0")
    assert not kept_file(site).exists()
    assert code(ask(site, make_plan(base=base), base)) == "plan-replayed"


@pytest.mark.parametrize("lost", [False, True], ids=["first-reply-left", "second-reply-left"])
def test_the_outbox_lets_no_second_update_of_one_reservation_out(
    site: SiteSettings, base: Tensors, lost: bool
) -> None:
    """Even where the round code were wrong: another update under the same reservation stays."""
    if lost:  # killed after the reply was kept, and before it left
        RoundHandler(site, self_test=no_test).handle(signed(make_plan(base=base)), base)
    ask(site, make_plan(base=base), base)
    plan = make_plan(base=base)
    with Outbox.open(site) as outbox:
        request = outbox.opened(signed(plan), base)
        reply = RoundHandler(site, self_test=no_test).handle(signed(plan), base)
        assert reply.update is not None
        assert reply.receipt is not None
        tensors = {n: (a * np.float32(0.5)).astype(np.float32) for n, a in
                   reply.update.tensors.items()}  # fmt: skip
        update = ModelUpdate(reply.update.binding, tensors)
        receipt = reply.receipt.model_copy(update={"update_digest": update.digest})
        forged = SiteReply("north", receipt=receipt, update=update)
        sent = records_to_reply(outbox.send(forged, request))
        assert code(sent) == "outbox-refused"
        assert records_to_reply(outbox.send(reply, request)).update is not None


def test_a_compressed_update_is_sent_again_in_the_same_bytes(
    site: SiteSettings, base: Tensors
) -> None:
    first = make_plan(base=base)
    reply = RoundHandler(site, self_test=no_test).handle(signed(first), base)
    assert reply.update is not None
    found = compress(reply.update.tensors, "int8", seed=b"seed")
    update = ModelUpdate(reply.update.binding, found.decoded, found.packed)
    assert reply.receipt is not None
    receipt = reply.receipt.model_copy(update={"update_digest": update.digest})
    keep_reply(site, first, replace(reply, update=update, receipt=receipt))
    again = kept_reply(site, make_plan(base=base), scores=True, withdrawn=0)
    assert again is not None
    assert again.update is not None
    assert again.update.packed is not None
    assert again.update.packed.kind == "int8"
    for name, array in found.packed.arrays.items():
        np.testing.assert_array_equal(again.update.packed.arrays[name], array)
    assert tensors_digest(again.update.tensors) == tensors_digest(update.tensors)
