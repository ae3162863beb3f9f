"""Holding a site's audit log against the coordinator's: what left is what came.

Neither end can change its own log so that the other's does not show it. Replies are matched by the
nonce of the plan that they answer, and by the digest over all that they carried.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from common.audit_entries import Entry, Left, PlanAccepted, PlanSent, ReplyRefused, ReplyTaken

Reply: TypeAlias = ReplyTaken | ReplyRefused
DifferenceCode = Literal[
    "plan-unknown",
    "plan-differs",
    "reply-unasked",
    "reply-unlogged",
    "reply-differs",
    "not-arrived",
]


@dataclass(frozen=True)
class Difference:
    """One thing that the two ends say differently.

    ``fault`` is False for what an honest federation has, too: a reply that left and was lost, or
    came too late.
    """

    code: DifferenceCode
    site: str
    campaign: str
    round: int
    nonce: str
    text: str
    fault: bool = True


def compare(
    site: str, at_site: Iterable[Entry], at_coordinator: Iterable[Entry]
) -> tuple[Difference, ...]:
    """Compare both ends.

    Parameters
    ----------
    site : str
        The site's name.
    at_site : iterable of Entry
        All of its entries, or those of what left.
    at_coordinator : iterable of Entry
        All of the coordinator's; those of other sites are left out.

    Returns
    -------
    tuple of Difference
        Empty where both ends say the same.
    """
    sent: dict[str, PlanSent] = {}
    came: dict[str, list[Reply]] = defaultdict(list)
    for told in at_coordinator:
        if isinstance(told, PlanSent) and told.site == site:
            sent[told.nonce] = told
        elif isinstance(told, ReplyTaken | ReplyRefused) and told.site == site:
            came[told.nonce].append(told)
    left: dict[str, list[Left]] = defaultdict(list)
    found: list[Difference] = []
    for entry in at_site:
        if isinstance(entry, Left) and entry.nonce is not None:
            left[entry.nonce].append(entry)
        elif isinstance(entry, PlanAccepted):
            found += _plan(site, entry, sent.get(entry.nonce))
    for nonce in left.keys() | came.keys():
        found += _replies(site, left[nonce], came[nonce], asked=nonce in sent)
    return tuple(sorted(found, key=lambda d: (d.campaign, d.round, d.nonce, d.code)))


def _plan(site: str, accepted: PlanAccepted, sent: PlanSent | None) -> Iterator[Difference]:
    if sent is not None and sent.plan_digest != accepted.plan_digest:
        yield Difference(
            "plan-differs",
            site,
            accepted.campaign,
            accepted.round,
            accepted.nonce,
            "The site accepted another plan than the coordinator says it sent.",
        )


def _replies(
    site: str, left: list[Left], came: list[Reply], *, asked: bool
) -> Iterator[Difference]:
    named = came[0] if came else left[0]
    where = (site, named.campaign or "", named.round or 0, named.nonce or "")
    if not asked:
        yield Difference(
            "plan-unknown" if left else "reply-unasked",
            *where,
            "The coordinator's log names no plan that was sent for this reply.",
        )
    waiting = list(left)
    for reply in (r for r in came if r.sha256 is not None):
        same = next((w for w in waiting if w.sha256 == reply.sha256), None)
        if same is not None:
            waiting.remove(same)
            yield from _details(where, same, reply)
        elif waiting:
            yield Difference("reply-differs", *where, _differing(waiting.pop(0), reply))
        else:
            said = (
                f"The coordinator received {reply.bytes} bytes that the site's log does not name."
            )
            yield Difference("reply-unlogged", *where, said)
    for lost in waiting:
        said = f"{lost.bytes} bytes ({', '.join(lost.contents)}) left and did not arrive."
        yield Difference("not-arrived", *where, said, fault=False)


def _details(where: tuple[str, str, int, str], left: Left, came: Reply) -> Iterator[Difference]:
    other = isinstance(came, ReplyTaken) and came.update_digest != left.update_digest
    if came.bytes != left.bytes or other:
        yield Difference("reply-differs", *where, _differing(left, came))


def _differing(left: Left, came: Reply) -> str:
    if isinstance(came, ReplyTaken) and came.update_digest != left.update_digest:
        what = f"update {_short(left.update_digest)} left, {_short(came.update_digest)} came"
    elif left.bytes != came.bytes:
        what = f"{left.bytes} bytes left, {came.bytes} came"
    else:
        what = f"content {_short(left.sha256)} left, {_short(came.sha256)} came"
    return f"What left the site is not what the coordinator received: {what}."


def _short(digest: str | None) -> str:
    return "none" if digest is None else digest[:12]
