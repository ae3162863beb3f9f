"""Ids and codes are read whole in every table, at 80 columns and in a file."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from deploy.commands.registry import draw_answers
from deploy.console import ErrorDocument, emit
from deploy.tables import Table
from server.site_answers import SiteAnswer

ID = "20261122-095436-921717-f788"


def outbox() -> Table:
    table = Table(title="What left north")
    for heading in ("when (UTC)", "what", "campaign", "round", "bytes", "sha256", "epsilon"):
        table.add_column(heading)
    table.add_row("2026-11-22 09:54:36", "update, evaluation", ID, "12", "1,234", "ab" * 6, "1.5")
    return table


def drawn(table: Table, width: int) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(table)
    assert max(map(len, stream.getvalue().splitlines())) <= width
    return stream.getvalue()


@pytest.mark.parametrize("width", [100, 120])
def test_an_id_is_in_one_line_where_there_is_room_for_it(width: int) -> None:
    text = drawn(outbox(), width)
    assert ID in text
    assert "…" not in text


def test_where_there_is_none_it_goes_on_in_the_next_line() -> None:
    text = drawn(outbox(), 50)
    assert "…" not in text
    letters = sorted(c for c in text if c.isdigit())
    assert letters == sorted(c for c in drawn(outbox(), 200) if c.isdigit())


def test_a_refusals_code_is_whole_at_80_columns() -> None:
    stream = io.StringIO()
    answers = [
        SiteAnswer(site=name, affordable=False, code="recipe-changed", forecast=None)
        for name in "ab"
    ]
    draw_answers(answers, Console(file=stream, width=80))
    assert stream.getvalue().split("recipe-changed:")[0].count("recipe-changed") == 2


def test_in_a_file_nothing_is_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    unused = ErrorDocument.model_construct()
    emit(unused, as_json=False, show=lambda console: console.print(outbox()))
    row = next(line for line in capsys.readouterr().out.splitlines() if ID in line)
    assert "2026-11-22 09:54:36" in row
    assert "update, evaluation" in row
