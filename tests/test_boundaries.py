"""The rooms keep apart: who may import whom, and whose names they are."""

import ast
import importlib.metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("common", "client", "server", "simulations", "deploy")
MAY_IMPORT = {
    "common": {"common"},
    "client": {"client", "common"},
    "server": {"server", "common"},
    "simulations": {"simulations", "client", "server", "common"},
    "deploy": {"deploy", "simulations", "client", "server", "common"},
}
FORBIDDEN_FLOWER = ("flwr.compat", "flwr.server.strategy", "flwr.client")


def imported_modules(source: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "imports are absolute, so that a test can read them"
            names.add(node.module)
    return names


def python_files(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("room", ROOMS)
def test_room_imports_only_what_it_may(room: str) -> None:
    files = python_files(room)
    assert files, f"{room} is empty"
    for path in files:
        rooms = {name.split(".")[0] for name in imported_modules(path.read_text())} & set(ROOMS)
        strangers = rooms - MAY_IMPORT[room]
        assert not strangers, f"{path.relative_to(ROOT)} imports {sorted(strangers)}"


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_uses_flowers_old_interfaces(room: str) -> None:
    for path in python_files(room):
        for name in imported_modules(path.read_text()):
            assert not any(name == f or name.startswith(f + ".") for f in FORBIDDEN_FLOWER), (
                f"{path.relative_to(ROOT)} imports {name}"
            )


def test_nothing_but_wardround_provides_the_room_names() -> None:
    """ADR 0001: folder names are import names; a foreign package of that name would shadow us."""
    providers = importlib.metadata.packages_distributions()
    for room in ROOMS:
        owners = set(providers.get(room, [])) - {"wardround"}
        assert not owners, f"{owners} also provide {room!r}: use one environment for Wardround"


def test_the_check_itself_sees_a_stranger() -> None:
    assert "server.rounds" in imported_modules("def f():\n    from server.rounds import x\n")


@pytest.mark.parametrize("name", ["utils.py", "helpers.py", "misc.py"])
def test_no_rooms_without_a_name(name: str) -> None:
    assert not [p for room in ROOMS for p in (ROOT / room).rglob(name)]
