"""A folder of images and a labels CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from client.intake.source import (
    CsvColumns,
    ImportSource,
    SourceRow,
    SourceRows,
    compiled_pattern,
    file_loader,
    patient_from_name,
    refused_row,
)
from common.errors import CaseRefused, InputRefused
from common.imaging import DEFAULT_LIMITS, ImageLimits

_DELIMITERS = ",;\t"
_MAXIMUM_BYTES = 256 * 1024 * 1024


def read_csv(source: ImportSource, *, limits: ImageLimits = DEFAULT_LIMITS) -> SourceRows:
    """Open a labels CSV: UTF-8 with or without BOM; comma, semicolon or tab.

    Raises
    ------
    InputRefused
        If the CSV is absent, not UTF-8, empty, or lacks a column. A bad row is no such case.
    """
    text = read_text(source.labels_path())
    header, reader = open_table(text)
    places = _places(source, header)
    pattern = compiled_pattern(source.patient_pattern)
    rows = _rows(source, reader, places, len(header), pattern, limits)
    return SourceRows(total=max(0, len(text.splitlines()) - 1), rows=rows)


def open_table(text: str) -> tuple[list[str], Iterator[list[str]]]:
    """Return a CSV's header, stripped, and a reader of its rows; comma, semicolon or tab.

    Raises
    ------
    InputRefused
        With code ``labels-empty``. The reader raises `csv.Error` for a row that cannot be parsed.
    """
    header_line = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=header_line.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        return [name.strip() for name in next(reader)], reader
    except (StopIteration, csv.Error) as error:
        raise InputRefused(
            "The labels CSV is empty.", action="It needs a header line.", code="labels-empty"
        ) from error


def read_text(path: Path) -> str:
    """Read a labels CSV; `InputRefused` if it is absent, too large or not UTF-8."""
    try:
        if path.stat().st_size > _MAXIMUM_BYTES:
            raise InputRefused("The labels CSV is too large.", code="labels-too-large")
        return path.read_text("utf-8-sig")
    except OSError as error:
        raise InputRefused(
            f"The labels CSV {path} cannot be read ({error.strerror}).",
            action="Name it with --labels (an import may have another --layout, too).",
            code="labels-missing",
        ) from error
    except UnicodeDecodeError as error:
        raise InputRefused(
            f"The labels CSV {path} is not UTF-8 text.",
            action="Save it as 'CSV UTF-8'.",
            code="labels-encoding",
        ) from error


def _places(source: ImportSource, header: Sequence[str]) -> dict[str, int]:
    """Return where each known column is."""
    places: dict[str, int] = {}
    for column in fields(CsvColumns):
        name = getattr(source.columns, column.name)
        if name in header:
            places[column.name] = header.index(name)
            continue
        by_hand = name != column.default
        needed = column.name in ("file", "label") or (column.name == "site" and source.site)
        if by_hand or needed:
            raise InputRefused(
                f"The labels CSV has no column {name!r}.",
                meaning=f"Its columns are: {', '.join(header)}.",
                action=f"Name the right one with --{column.name}-column"
                + (" (of a simulation, --sites-by)." if column.name == "site" else "."),
                code="labels-column",
            )
    return places


def _rows(
    source: ImportSource,
    reader: Iterator[list[str]],
    places: dict[str, int],
    width: int,
    pattern: re.Pattern[str] | None,
    limits: ImageLimits,
) -> Iterator[SourceRow]:
    number = 1
    while True:
        number += 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield refused_row(number, "", _malformed("cannot be parsed"))
            continue
        if not any(value.strip() for value in values):
            continue
        if len(values) != width:
            fault = _malformed(f"has {len(values)} fields where the header has {width}")
            yield refused_row(number, "", fault)
            continue
        row = {name: values[place].strip() or None for name, place in places.items()}
        file = row["file"]
        if file is None:
            yield refused_row(number, "", CaseRefused("No file is named.", code="file-missing"))
            continue
        yield SourceRow(
            number=number,
            file=file,
            load=file_loader(source.data, file, limits.bytes),
            label=row["label"],
            patient_id=row.get("patient") or patient_from_name(pattern, file),
            site=row.get("site"),
            age=row.get("age"),
            sex=row.get("sex"),
            split=row.get("split"),
        )


def _malformed(how: str) -> CaseRefused:
    return CaseRefused(f"The row {how}.", code="row-malformed")
