"""Which column of a public data set's table says who is trained on and who is tested on."""

from __future__ import annotations

import csv
from pathlib import Path

from client.cases.splits import SPLIT_NAMES
from client.intake.csv_source import open_table, read_text
from common.errors import InputRefused

COLUMNS = ("split", "fold")
"""In this order. Data sets with a published test set name it so or so."""


def dividing_column(table: Path) -> str:
    """Return the column that divides a table's patients; the first of `COLUMNS` where none does.

    ``fold`` counts only where every row says train or test: elsewhere it numbers the parts of a
    cross-validation. Rows that the import would leave out or refuse for their form do not count.

    Parameters
    ----------
    table : Path
        A labels CSV; one that is missing or cannot be read is the import's to name.
    """
    try:
        header, rows = open_table(read_text(table))
        present = [name for name in COLUMNS if name in header]
        if present != ["fold"]:
            return COLUMNS[0]
        place = header.index("fold")
        words = {
            row[place].strip().lower()
            for row in rows
            if len(row) == len(header) and any(value.strip() for value in row)
        }
    except (InputRefused, csv.Error):
        return COLUMNS[0]
    sides = {SPLIT_NAMES.get(word) for word in words}
    return "fold" if sides == {"train", "holdout"} else COLUMNS[0]
