"""The threat model and the suite say the same: every attack has a row, every row has its test."""

from __future__ import annotations

import re
from pathlib import Path

from tests.attacks.suite import ATTACKS

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \| `([^`|]+)` \|$", re.MULTILINE)


def rows() -> dict[str, tuple[str, str, str]]:
    text = (ROOT / "docs" / "threat-model.md").read_text("utf-8")
    return {test: (actor, what, defence) for actor, what, defence, test in ROW.findall(text)}


def test_every_attack_has_its_row_and_no_row_an_attack_that_is_not_there() -> None:
    told = {test: row for test, row in rows().items() if "::" not in test}
    assert told == {a.name: (a.actor, a.what, a.defence) for a in ATTACKS}


def test_every_test_named_in_full_exists() -> None:
    named = [test for test in rows() if "::" in test]
    assert named
    for test in named:
        path, _, function = test.partition("::")
        source = (ROOT / path).read_text("utf-8")
        assert re.search(rf"^(async )?def {function}\(", source, re.MULTILINE), test


def test_the_guarantee_is_one_sentence() -> None:
    text = (ROOT / "docs" / "threat-model.md").read_text("utf-8")
    guarantee = text.split("**The guarantee, in one sentence.**")[1].split("\n\n")[0]
    assert len(re.findall(r"\.(?=\s|$)", guarantee)) == 1
