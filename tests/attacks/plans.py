"""Attacks on the plan: its signature, its time, its order and what it is about."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from client import outbox, plan_memory, round_handler
from client.plan_memory import Accepted, Limits, PlanMemory
from client.privacy.accounting import Budget
from client.privacy.ledger import Check, PrivacyLedger
from client.privacy.ledger_lines import LedgerLine, RoundRequest
from common.plan import RoundPlan, SignedPlan, verify_plan
from common.signing import SigningKey, VerifyKey
from common.update import tensors_digest
from tests.attacks.attack import Attack, Finding
from tests.attacks.hospital import BASE, Hospital, answer, without_outbox
from tests.client.rounds import base_tensors, make_plan, signed


def unsigned(folder: Path) -> Finding:
    reply = Hospital.build(folder).ask(signed(make_plan(base=BASE), SigningKey.generate()))
    return Finding(reply.update is not None, answer(reply))


def altered(folder: Path) -> Finding:
    """Every field of value to an attacker, changed under the true signature."""
    hospital, honest = Hospital.build(folder), signed(make_plan(base=BASE))
    changes = [
        (b'"epsilon":8.0', b'"epsilon":800'),
        (b'"purpose":"train"', b'"purpose":"evaluate"'),
        (b'"local_steps":2', b'"local_steps":9'),
        (b'"campaign":"campaign"', b'"campaign":"campaigm"'),
    ]
    replies = []
    for before, after in changes:
        assert before in honest.payload
        payload = honest.payload.replace(before, after)
        replies.append(hospital.ask(replace(honest, payload=payload)))
    won = any(reply.refusal is None for reply in replies)
    return Finding(won, f"{len(replies)} alterations: {answer(replies[0])}")


def believe_any_signature(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(VerifyKey, "accepts", lambda *_: True)


def replayed(folder: Path) -> Finding:
    """A recorded request for holdout counts is sent again and again."""
    hospital = Hospital.build(folder)
    plan = signed(make_plan(base=BASE, purpose="evaluate"))
    assert hospital.ask(plan).evaluation is not None
    again = hospital.ask(plan)
    return Finding(again.evaluation is not None, answer(again))


def forget_plans(patch: pytest.MonkeyPatch) -> None:
    remember = PlanMemory.accept

    def accept(memory: PlanMemory, plan: RoundPlan, limits: Limits, *, now: float) -> Accepted:
        with memory._transactions.writing() as session:
            session.query(plan_memory.PlanRow).delete()
        return remember(memory, plan, limits, now=now)

    patch.setattr(PlanMemory, "accept", accept)


def same_round_again(folder: Path) -> Finding:
    """Round 1 under fresh nonces, to average the noise away."""
    hospital = Hospital.build(folder)
    replies = [hospital.ask(make_plan(base=BASE, round=1)) for _ in range(3)]
    # The same update sent again tells nothing new; one with other noise does.
    sent = [tensors_digest(r.update.tensors) for r in replies if r.update is not None]
    unlike = len(set(sent))
    what = f"{unlike} update of round 1, sent {len(sent)} times"
    return Finding(unlike > 1, f"{what}; then {answer(replies[-1])}")


def let_rounds_repeat(patch: pytest.MonkeyPatch) -> None:
    """Rounds are kept under numbers of their own, so that neither code nor database sees one."""
    reserve = PrivacyLedger.reserve
    outcome = PrivacyLedger.outcome
    numbers = iter(range(1000, 2000))
    asked: dict[str, LedgerLine] = {}

    def renumbered(
        ledger: PrivacyLedger, request: RoundRequest, budget: Budget, *, first: Check | None = None
    ) -> LedgerLine:
        line = reserve(ledger, replace(request, round=next(numbers)), budget, first=first)
        asked[line.nonce] = line
        return line

    def of_number(ledger: PrivacyLedger, line: LedgerLine, what: str) -> LedgerLine:
        return outcome(ledger, asked[line.nonce], what)

    def newest(ledger: PrivacyLedger, campaign: str, _round: int) -> LedgerLine | None:
        return next((n for n in reversed(ledger.entries()) if n.kind == "reserve"), None)

    patch.setattr(PrivacyLedger, "reserve", renumbered)
    patch.setattr(PrivacyLedger, "outcome", of_number)
    patch.setattr(PrivacyLedger, "reservation", newest)
    patch.setattr(round_handler, "kept_reply", lambda *_, **__: None)
    without_outbox(patch)


def expired(folder: Path) -> Finding:
    """A plan that was held back on the way, and delivered a day later."""
    old = make_plan(base=BASE, now=int(time.time()) - 86_400)
    reply = Hospital.build(folder).ask(old)
    return Finding(reply.update is not None, answer(reply))


def stop_the_clock(patch: pytest.MonkeyPatch) -> None:
    def timeless(signed_plan: SignedPlan, keys: list[VerifyKey], *, now: float) -> RoundPlan:
        issued = RoundPlan.model_validate_json(signed_plan.payload).issued_at
        return verify_plan(signed_plan, keys, now=issued)

    patch.setattr(round_handler, "verify_plan", timeless)
    patch.setattr(outbox, "verify_plan", timeless)


def reordered(folder: Path) -> Finding:
    """Round 1, held back, is delivered after round 2."""
    hospital = Hospital.build(folder)
    first, second = make_plan(base=BASE, round=1), make_plan(base=BASE, round=2)
    assert hospital.ask(second).update is not None
    reply = hospital.ask(first)
    return Finding(reply.update is not None, answer(reply))


def ignore_order(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(plan_memory, "_refuse_old", lambda _session, _plan: None)


def other_base(folder: Path) -> Finding:
    """A crafted model travels with a plan for the honest one, as to fish for one patient."""
    crafted = {name: array * 3 for name, array in base_tensors().items()}
    reply = Hospital.build(folder).ask(make_plan(base=BASE), base=crafted)
    return Finding(reply.update is not None, answer(reply))


class _EqualToAll(str):
    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, _other: object) -> bool:
        return True

    def __ne__(self, _other: object) -> bool:
        return False


def believe_any_base(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(round_handler, "tensors_digest", lambda _tensors: _EqualToAll("any"))


def scored_without_end(folder: Path) -> Finding:
    """Fresh, valid plans score the holdout until single patients can be told apart."""
    hospital = Hospital.build(folder, evaluations_per_day=3)
    replies = [hospital.ask(make_plan(base=BASE, purpose="evaluate")) for _ in range(5)]
    scored = sum(reply.evaluation is not None for reply in replies)
    return Finding(scored > 3, f"3 a day allowed, {scored} given; then {answer(replies[-1])}")


def count_nothing(patch: pytest.MonkeyPatch) -> None:
    def none(_session: Session, *_: object) -> int:
        return 0

    patch.setattr(plan_memory, "_count", none)


def _attack(
    name: str,
    what: str,
    defence: str,
    act: Callable[[Path], Finding],
    switch_off: Callable[[pytest.MonkeyPatch], None],
    *,
    thief: bool = True,
) -> Attack:
    actor = "network thief" if thief else "malicious coordinator"
    return Attack(name, actor, what, defence, act, switch_off)


ATTACKS = (
    _attack(
        "unsigned-plan",
        "a plan signed by a stranger",
        "Ed25519, keys of the start-up kit",
        unsigned,
        believe_any_signature,
    ),
    _attack(
        "altered-plan",
        "a true plan with other contents",
        "Ed25519 over the exact bytes",
        altered,
        believe_any_signature,
    ),
    _attack(
        "replayed-plan",
        "a recorded plan sent again",
        "nonces kept for ever",
        replayed,
        forget_plans,
    ),
    _attack("expired-plan", "a plan held back for a day", "plans expire", expired, stop_the_clock),
    _attack(
        "reordered-plan",
        "a lower round after a higher one",
        "rounds only rise",
        reordered,
        ignore_order,
    ),
    _attack(
        "other-base-model",
        "a crafted model under a true plan",
        "the plan names the model's digest",
        other_base,
        believe_any_base,
    ),
    _attack(
        "same-round-again",
        "one round asked for thrice, to average the noise",
        "the ledger takes a round once",
        same_round_again,
        let_rounds_repeat,
        thief=False,
    ),
    _attack(
        "endless-scoring",
        "the holdout scored again and again",
        "evaluations_per_day",
        scored_without_end,
        count_nothing,
        thief=False,
    ),
)
