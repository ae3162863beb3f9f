"""Every attack is stopped; and with its defence switched off, every attack works."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks.attack import Attack
from tests.attacks.suite import ATTACKS

by_name = pytest.mark.parametrize(
    "attack",
    [
        pytest.param(a, id=a.name, marks=pytest.mark.skipif(bool(a.absent), reason=a.absent or "-"))
        for a in ATTACKS
    ],
)


@by_name
def test_defended(attack: Attack, tmp_path: Path) -> None:
    found = attack.act(tmp_path)
    assert not found.won, found.happened


@by_name
def test_works_without_its_defence(attack: Attack, tmp_path: Path) -> None:
    found = attack.undefended(tmp_path)
    assert found.won, f"switching off '{attack.defence}' changed nothing: {found.happened}"


def test_names_differ() -> None:
    names = [attack.name for attack in ATTACKS]
    assert len(set(names)) == len(names)
