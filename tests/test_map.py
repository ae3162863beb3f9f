"""ARCHITECTURE.md is the map: every module is on it, in its room, and what it names is there."""

import re
from pathlib import Path

import pytest

from tests.test_boundaries import ROOMS

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
UNLISTED = {"api", "migrations", "commands"}  # one module a route, a revision, a command


def rooms() -> dict[str, str]:
    """The map's rows, by room: ``client``, ``client/cases`` and so on."""
    found: dict[str, str] = {}
    top = room = ""
    for line in PAGE.split("## The map")[1].split("```")[1].splitlines():
        named = re.match(r"(  )?([a-z]+)/", line)
        if named:
            top = top if named[1] else named[2]
            room = f"{top}/{named[2]}" if named[1] else top
        names = re.sub(r"^ *[a-z]+/", "", line) if named else line
        found[room] = found.get(room, "") + " " + re.sub(r"(\w+) \((_[^)]*)\)", _spelt, names)
    return found


def _spelt(family: re.Match[str]) -> str:
    """``provider (_settings  _connection)`` in full."""
    return " ".join([family[1], *(family[1] + ending for ending in family[2].split())])


@pytest.mark.parametrize("top", ROOMS)
def test_every_module_is_on_the_map(top: str) -> None:
    known = rooms()
    missing = []
    for path in sorted((ROOT / top).rglob("[a-z]*.py")):
        folder = path.parent.relative_to(ROOT)
        if UNLISTED & set(folder.parts):
            continue
        named = set(re.findall(r"\w+", known.get(folder.as_posix(), "")))
        family = "_sections" in named and path.stem.endswith("_sections")
        if path.stem not in named and not family:
            missing.append(path.relative_to(ROOT).as_posix())
    assert not missing, f"name these in their rows of the map: {missing}"


def test_what_the_map_names_is_there() -> None:
    for room, row in rooms().items():
        files = {path.stem for path in (ROOT / room).iterdir()}
        gone = {name for name in re.findall(r"\b[a-z]+_\w+", row) if name not in files}
        assert not gone, f"{room} has none of {sorted(gone)}"


def test_every_path_on_the_page_is_there() -> None:
    linked = re.findall(r"\]\(([^)#:]+)", PAGE)
    named = [
        path
        for path in re.findall(r"`(\w+/[\w/.]*)`", PAGE)
        if path.split("/")[0] in {*ROOMS, "tests"}
    ]
    gone = [path for path in (*linked, *named) if not (ROOT / path).exists()]
    assert linked
    assert named
    assert not gone
