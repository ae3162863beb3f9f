"""A site's log against the coordinator's: every difference is named, and nothing else."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.audit_compare import Difference, compare
from common.audit_entries import Entry, Left, PlanAccepted, PlanSent, ReplyRefused, ReplyTaken


def digest_of(value: object) -> str:
    return hashlib.sha256(str(value).encode()).hexdigest()


@dataclass(frozen=True)
class Ends:
    """What both ends wrote about the same rounds."""

    site: tuple[Entry, ...]
    coordinator: tuple[Entry, ...]

    def differences(self) -> tuple[Difference, ...]:
        return compare("north", self.site, self.coordinator)


def honest(rounds: int = 3) -> Ends:
    site: list[Entry] = []
    coordinator: list[Entry] = []
    for number in range(1, rounds + 1):
        where = {"campaign": "spring", "round": number, "nonce": digest_of(f"nonce {number}")}
        plan = {**where, "purpose": "train", "plan_digest": digest_of(f"plan {number}")}
        content = {"bytes": 100 + number, "sha256": digest_of(f"content {number}")}
        update = digest_of(f"update {number}")
        coordinator.append(PlanSent(site="north", **plan))
        coordinator.append(PlanSent(site="south", **{**plan, "nonce": digest_of(number)}))
        site.append(PlanAccepted(**plan))
        told = Left(
            contents=("update", "receipt"),
            destination="here:1",
            update_digest=update,
            **where,
            **content,
        )
        site.append(told)
        coordinator.append(ReplyTaken(site="north", update_digest=update, **where, **content))
    return Ends(tuple(site), tuple(coordinator))


def changed(entries: tuple[Entry, ...], kind: type, **changes: object) -> tuple[Entry, ...]:
    """The entries, the first of ``kind`` changed."""
    index = next(i for i, entry in enumerate(entries) if isinstance(entry, kind))
    other = entries[index].model_copy(update=changes)
    return (*entries[:index], other, *entries[index + 1 :])


def without(entries: tuple[Entry, ...], kind: type) -> tuple[Entry, ...]:
    """The entries without the first of ``kind``."""
    index = next(i for i, entry in enumerate(entries) if isinstance(entry, kind))
    return (*entries[:index], *entries[index + 1 :])


def codes(found: tuple[Difference, ...]) -> list[tuple[str, bool]]:
    return [(difference.code, difference.fault) for difference in found]


def test_the_same_on_both_ends() -> None:
    assert honest().differences() == ()


def test_another_update_arrived() -> None:
    ends = honest()
    other = {"update_digest": digest_of("x"), "sha256": digest_of("y")}
    swapped = Ends(ends.site, changed(ends.coordinator, ReplyTaken, **other))
    (found,) = swapped.differences()
    assert (found.code, found.fault, found.round) == ("reply-differs", True, 1)
    assert digest_of("x")[:12] in found.text


@pytest.mark.parametrize(
    "change", [{"bytes": 7}, {"sha256": "0" * 64}, {"update_digest": "0" * 64}]
)
@pytest.mark.parametrize("kind", [Left, ReplyTaken])
def test_any_other_figure(kind: type, change: dict[str, object]) -> None:
    ends = honest()
    if kind is Left:
        ends = Ends(changed(ends.site, Left, **change), ends.coordinator)
    else:
        ends = Ends(ends.site, changed(ends.coordinator, ReplyTaken, **change))
    assert codes(ends.differences()) == [("reply-differs", True)]


def test_the_site_says_nothing_left() -> None:
    ends = honest()
    hidden = Ends(without(ends.site, Left), ends.coordinator)
    assert codes(hidden.differences()) == [("reply-unlogged", True)]


def test_a_lost_reply_is_named_and_no_fault() -> None:
    ends = honest()
    lost = Ends(ends.site, without(ends.coordinator, ReplyTaken))
    assert codes(lost.differences()) == [("not-arrived", False)]


def test_a_plan_that_the_coordinator_does_not_own_up_to() -> None:
    ends = honest()
    hidden = Ends(ends.site, without(ends.coordinator, PlanSent))
    assert codes(hidden.differences()) == [("plan-unknown", True)]
    other = Ends(ends.site, changed(ends.coordinator, PlanSent, plan_digest=digest_of("other")))
    assert codes(other.differences()) == [("plan-differs", True)]


def test_refusals_and_errors() -> None:
    where = {"campaign": "spring", "round": 1, "nonce": digest_of("n")}
    content = {"bytes": 10, "sha256": digest_of("refusal")}
    sent = PlanSent(site="north", purpose="train", plan_digest=digest_of("p"), **where)
    told = Left(contents=("refusal",), destination="h:1", code="no-cases", **where, **content)
    refused = ReplyRefused(site="north", code="no-cases", **where, **content)
    assert Ends((told,), (sent, refused)).differences() == ()
    failed = ReplyRefused(site="north", code="site-app-failed", **where)
    assert Ends((), (sent, failed)).differences() == ()
    assert codes(Ends((told,), (sent, failed)).differences()) == [("not-arrived", False)]
    assert Ends((), (sent,)).differences() == ()  # a silent site


def test_what_answers_no_plan_is_not_compared() -> None:
    described = Left(contents=("description",), destination="h:1", bytes=3, sha256=digest_of(1))
    assert Ends((described,), ()).differences() == ()


@given(data=st.data(), rounds=st.integers(1, 4))
def test_no_single_change_at_one_end_goes_unnoticed(data: st.DataObject, rounds: int) -> None:
    ends = honest(rounds)
    entries = list(ends.coordinator)
    own = [i for i, e in enumerate(entries) if getattr(e, "site", "") == "north"]
    index = data.draw(st.sampled_from(own))
    if data.draw(st.booleans()):
        del entries[index]
    else:
        fields = ["nonce", "plan_digest", "update_digest", "sha256", "bytes"]
        held = [name for name in fields if hasattr(entries[index], name)]
        name = data.draw(st.sampled_from(held))
        value = 10**6 if name == "bytes" else digest_of(data.draw(st.integers()))
        entries[index] = entries[index].model_copy(update={name: value})
    assert Ends(ends.site, tuple(entries)).differences() != ()
