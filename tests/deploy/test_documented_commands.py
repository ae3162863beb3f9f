"""Every command line that the README and the documents show exists, with all its options."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

from deploy.cli import app

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = typer.main.get_command(app)
EVERYWHERE = {"--help", "--version"}

LINE = re.compile(r"^[ \t]*(?:\$ )?(?:\.venv/bin/)?(wardround .*)$", re.MULTILINE)
SPAN = re.compile(r"`(?:\.venv/bin/)?(wardround\s[^`]+)`")
OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")


def written(text: str) -> list[str]:
    """The command lines of a document: in blocks, fenced or indented, and within sentences."""
    found = [line.split(" # ")[0] for line in LINE.findall(text)] + SPAN.findall(text)
    return [" ".join(line.replace("\\|", "|").split()) for line in found]


def named(words: list[str], found: click.Command) -> Iterator[tuple[click.Command, list[str]]]:
    """The commands that words name (`a|b` names two), each with the words after it."""
    if not isinstance(found, click.Group) or not words or words[0][0] in "-[…":
        yield found, words
        return
    for name in words[0].split("|"):
        assert name in found.commands, f"no command {name}"
        yield from named(words[1:], found.commands[name])


def alternatives(line: str) -> Iterator[list[str]]:
    """`wardround x list | remove NAME` is two lines; within brackets, `|` separates options."""
    first, *others = re.sub(r"\([^)]*\)", lambda m: m[0].replace("|", " "), line).split(" | ")
    words = first.split()[1:]
    yield words
    for other in others:
        if not other.startswith("-"):
            yield [*words[:-1], *other.split()]


def check(line: str) -> None:
    for words in alternatives(line):
        for found, after in named(words, COMMAND):
            known = {o for p in found.params for o in (*p.opts, *p.secondary_opts)} | EVERYWHERE
            unknown = set(OPTION.findall(" ".join(after))) - known
            assert not unknown, f"{line}: no option {', '.join(unknown)}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_is_written_can_be_typed(document: Path) -> None:
    for line in written(document.read_text("utf-8")):
        check(line)


def test_it_looks_at_all_of_them() -> None:
    lines = [line for path in DOCUMENTS for line in written(path.read_text("utf-8"))]
    assert len(lines) > 90
    for line in ("wardround audit verify --fold x", "wardround site upp", "wardround site up -x"):
        with pytest.raises(AssertionError):
            check(line)
    check("wardround coordinator trigger list | remove NAME | fire NAME")


def test_audit_verify_takes_the_folder_that_the_other_commands_take() -> None:
    check("wardround audit verify --folder x")
