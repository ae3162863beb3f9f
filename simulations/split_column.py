"""Which column of a public data set's table says who is trained on and who is tested on."""

from __future__ import annotations

import csv
from pathlib import Path

from client.cases.splits import SPLIT_NAMES

COLUMNS = ("split", "fold")
"""In this order. Data sets with a published test set name it so or so."""


def dividing_column(table: Path) -> str:
    """Return the column that divides a table's patients; the first of `COLUMNS` where none does.

    ``fold`` counts only where every row says train or test: elsewhere it numbers the parts of a
    cross-validation.

    Parameters
    ----------
    table : Path
        A labels CSV; one that is missing or cannot be read is the import's to name.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            rows = csv.DictReader(stream)
            present = [name for name in COLUMNS if name in (rows.fieldnames or ())]
            if present != ["fold"]:
                return COLUMNS[0]
            words = {(row["fold"] or "").strip().lower() for row in rows}
    except (OSError, UnicodeDecodeError, csv.Error):
        return COLUMNS[0]
    sides = {SPLIT_NAMES.get(word) for word in words}
    return "fold" if sides == {"train", "holdout"} else COLUMNS[0]
