"""What an attack is: something that tries, tells what it got, and knows which defence stops it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import pytest

Actor: TypeAlias = Literal[
    "curious coordinator",
    "malicious coordinator",
    "poisoned neighbour",
    "network thief",
    "stolen site key",
    "patient-data snooper",
]


@dataclass(frozen=True)
class Finding:
    """What came of an attack: whether the attacker got what was wanted, and what was seen.

    ``figure`` is a measured number with its name, where the attack is one of degree.
    """

    won: bool
    happened: str
    figure: str = ""


Act: TypeAlias = Callable[[Path], Finding]


@dataclass(frozen=True)
class Attack:
    """One row of the table.

    Attributes
    ----------
    name : str
        A slug; the row of ``docs/threat-model.md`` names it.
    actor : Actor
        Who tries.
    what : str
        What is tried.
    defence : str
        What stands in the way.
    act : callable
        Tries, in an empty folder of its own, and says what came of it.
    switch_off : callable
        Switches off the defence, and nothing else, by monkeypatching.
    full : callable, optional
        The long form of ``act``, for `make attacks`.
    absent : str
        Why it cannot be run on this machine; empty where it can.
    """

    name: str
    actor: Actor
    what: str
    defence: str
    act: Act
    switch_off: Callable[[pytest.MonkeyPatch], None]
    full: Act | None = None
    absent: str = ""

    def undefended(self, folder: Path) -> Finding:
        """Act with the defence switched off."""
        with pytest.MonkeyPatch.context() as patch:
            self.switch_off(patch)
            return self.act(folder)
