"""What a case's opinions come to. Pure: no database, no clock.

The rules, where ``readers`` people must agree:

1. Of each reader the newest opinion counts, and no other. A label that came with an import is one
   voice like a reader's.
2. ``readers`` is 1: the newest opinion that names a label gives the case that label.
3. ``readers`` is 2: a label that at least two voices name, and more of them than name any other,
   is the case's. So a third reader resolves a conflict of two.
4. A case that has its label keeps it while no voice names another; where one does, and rule 3 finds
   no label, the case is in conflict and waits again: what is in doubt is not trained on.
5. An opinion that is unsure names no label, and takes none away.
6. A case with a blocking flag that nobody set aside is held, whatever the opinions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

State: TypeAlias = Literal["waiting", "unsure", "conflict", "held", "confirmed", "disputed"]
"""``disputed``: it keeps its label, and the newest opinion is another. The rest says itself."""


@dataclass(frozen=True)
class Voice:
    """One opinion: whose, and the label; None is unsure."""

    reader: str
    label: str | None


@dataclass(frozen=True)
class Standing:
    """Where a case stands. ``label`` is None unless it is ``confirmed`` or ``disputed``."""

    state: State
    label: str | None


def standing(
    voices: Sequence[Voice], *, readers: int, established: str | None, blocked: bool
) -> Standing:
    """Return what a case's opinions come to.

    Parameters
    ----------
    voices : sequence of Voice
        All of them, oldest first.
    readers : int
        1 or 2: how many must agree.
    established : str or None
        The label that the case has, where it is confirmed.
    blocked : bool
        A flag that blocks was not set aside.
    """
    agreed = _newest_label(voices) if readers == 1 else _agreed(voices)
    named = {voice.label for voice in _latest(voices) if voice.label is not None}
    if agreed is None and established is not None and named <= {established}:
        agreed = established
    if agreed is None:
        return Standing(_open_state(voices, named), None)
    if blocked:
        return Standing("held", None)
    disputed = bool(voices) and voices[-1].label != agreed
    return Standing("disputed" if disputed else "confirmed", agreed)


def _latest(voices: Sequence[Voice]) -> list[Voice]:
    return list({voice.reader: voice for voice in voices}.values())


def _newest_label(voices: Sequence[Voice]) -> str | None:
    labels = [voice.label for voice in voices if voice.label is not None]
    return labels[-1] if labels else None


def _agreed(voices: Sequence[Voice]) -> str | None:
    counts = Counter(v.label for v in _latest(voices) if v.label is not None).most_common(2)
    if not counts or counts[0][1] < 2 or (len(counts) > 1 and counts[1][1] == counts[0][1]):
        return None
    return counts[0][0]


def _open_state(voices: Sequence[Voice], named: set[str]) -> State:
    if len(named) > 1:
        return "conflict"
    return "unsure" if any(v.label is None for v in _latest(voices)) else "waiting"
