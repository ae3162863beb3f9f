"""Malformed outbox messages by the thousand: broken before they leave the site."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from client import outbox, outbox_checks
from common.errors import PrivacyRefused
from common.evaluation import SiteEvaluation
from common.records import Refusal, SiteReply
from common.update import ModelUpdate
from tests.attacks.attack import Attack, Finding
from tests.attacks.breaking import SHORT, SPOILT, Accepted, tried
from tests.attacks.hospital import BASE, Hospital
from tests.client.rounds import make_plan

MESSAGES = 3000


@dataclass(frozen=True)
class _Leaving:
    reply: SiteReply
    grounds: outbox_checks.Grounds


def _leaving(folder: Path) -> _Leaving:
    """An honest reply of a real round, and what the outbox judges it by."""
    caught: list[_Leaving] = []
    check = outbox.check_reply

    def catch(reply: SiteReply, grounds: outbox_checks.Grounds) -> None:
        caught.append(_Leaving(reply, grounds))
        check(reply, grounds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outbox, "check_reply", catch)
        assert Hospital.build(folder).ask(make_plan(base=BASE)).update is not None
    return caught[0]


_FIGURES = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True), st.integers(-(10**30), 10**30), st.none()
)


def broken_message(honest: _Leaving, data: st.DataObject) -> None:
    """What the site's own code might hand to the outbox by a mistake, or by malice."""
    reply = _spoilt_reply(data, honest)
    try:
        outbox_checks.check_reply(reply, honest.grounds)
    except PrivacyRefused:
        return
    told, true = reply.receipt, honest.reply.receipt
    assert told is not None
    assert true is not None
    # More epsilon than was spent, or other rounded seconds, tell nobody anything.
    free = {"epsilon_campaign": 0, "epsilon_life": 0, "seconds": 0}
    changed = {
        n for n in free.keys() ^ type(true).model_fields if getattr(told, n) != getattr(true, n)
    }
    others = (reply.refusal, reply.update, reply.evaluation)
    if changed or others != (None, honest.reply.update, honest.reply.evaluation):
        raise Accepted(f"outbox message with another {', '.join(sorted(changed)) or 'part'}")
    for name in ("epsilon_campaign", "epsilon_life"):
        if not getattr(told, name) >= getattr(true, name) * (1 - 1e-6):
            raise Accepted("outbox message that tells less than was spent")


def _spoilt_reply(data: st.DataObject, honest: _Leaving) -> SiteReply:
    reply = honest.reply
    assert reply.update is not None
    assert reply.receipt is not None
    how = data.draw(st.sampled_from(["tensor", "receipt", "evaluation", "refusal", "part"]))
    if how == "tensor":
        name = data.draw(st.sampled_from(sorted(reply.update.tensors)))
        spoil = data.draw(st.sampled_from(SPOILT[:-1]))
        tensors = {**reply.update.tensors, name: spoil(reply.update.tensors[name])}
        if data.draw(st.booleans()):
            tensors = {n: a for n, a in reply.update.tensors.items() if n != name}
        digest = {} if data.draw(st.booleans()) else {"update_digest": "0" * 64}
        if np.isinf(tensors.get(name, np.zeros(1))).any() or name not in tensors or digest:
            digest = {"update_digest": "1" * 64}
        receipt = reply.receipt.model_copy(update=digest)
        return replace(reply, update=ModelUpdate(reply.update.binding, tensors), receipt=receipt)
    if how == "receipt":
        field = data.draw(st.sampled_from(sorted(type(reply.receipt).model_fields)))
        old = getattr(reply.receipt, field)
        new: Any = data.draw(st.text(max_size=20)) if isinstance(old, str) else data.draw(_FIGURES)
        return replace(reply, receipt=reply.receipt.model_copy(update={field: new}))
    if how == "evaluation":
        return replace(reply, evaluation=_spoilt_evaluation(data, reply.evaluation))
    if how == "refusal":
        return replace(reply, refusal=Refusal.model_construct(code=data.draw(st.text(max_size=60))))
    gone = data.draw(st.sampled_from(["update", "receipt"]))
    return replace(reply, **{gone: None})  # type: ignore[arg-type]


def _spoilt_evaluation(data: st.DataObject, honest: SiteEvaluation | None) -> SiteEvaluation:
    assert honest is not None
    change = data.draw(
        st.sampled_from(
            [
                {"classes": ("Jane Doe", "bright")},
                {"minimum_cell": 1},
                {"confusion": ((1, 0), (0, 1))},
                {"unresolved": (1, 1)},
            ]
        )
    )
    return honest.model_copy(update=change)


def _messages(count: int, folder: Path) -> Finding:
    return tried(partial(broken_message, _leaving(folder)), count)


def hold_nothing_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(outbox_checks, "_hold", lambda _kept, _rule: None)


ATTACKS = (
    Attack(
        "malformed-outbox-messages",
        "curious coordinator",
        "broken replies by the thousand",
        "the outbox's own rules",
        partial(_messages, SHORT),
        hold_nothing_back,
        partial(_messages, MESSAGES),
    ),
)
