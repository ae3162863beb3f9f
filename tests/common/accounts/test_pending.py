from __future__ import annotations

from common.accounts.pending import MOST, MOST_EACH, PendingSignIns


def test_who_begins_many_sign_ins_drops_their_own() -> None:
    pending = PendingSignIns()
    anna, _ = pending.begin("/", address="ward")
    first, _ = pending.begin("/", address="elsewhere")
    for _ in range(MOST):
        last, _ = pending.begin("/", address="elsewhere")
    assert pending.take(first) is None
    assert pending.take(last) is not None
    assert pending.take(anna) is not None
    assert pending.take(anna) is None, "an answer counts once"
    assert len(pending._held) == len(pending._owners) == MOST_EACH - 1


def test_all_together_are_bounded() -> None:
    pending = PendingSignIns()
    for number in range(MOST + 10):
        pending.begin("/", address=str(number))
    assert len(pending._held) == len(pending._owners) == MOST
