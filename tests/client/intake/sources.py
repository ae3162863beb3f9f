"""What import tests import: images, CSV files, and what their summaries say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from client.intake.source import ImportSource
from client.intake.summary import ImportSummary
from common.errors import InputRefused
from common.recipe import load_recipe
from tests.client.stores import TASK, picture

RECIPE = load_recipe(TASK)


def write_images(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(count):
        (folder / f"{n}.png").write_bytes(picture(n))
    return folder


def write_csv(data: Path, *lines: str, encoding: str = "utf-8") -> ImportSource:
    (data / "labels.csv").write_text("\n".join(lines) + "\n", encoding=encoding)
    return ImportSource(data)


def warning_codes(summary: ImportSummary) -> set[str]:
    return {warning.code for warning in summary.warnings}


def adds_up(summary: ImportSummary) -> bool:
    parts = (summary.kept, summary.already_present, summary.duplicates)
    return summary.rows == sum(parts) + summary.left_out + summary.refused_count


@contextmanager
def suppress_refusal(*codes: str) -> Iterator[None]:
    """Let refusals with these codes pass; every other error fails the test."""
    try:
        yield
    except InputRefused as error:
        if error.code not in codes:
            raise
