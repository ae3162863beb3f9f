"""A folder for each class; above them, if wished, one for each split."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from client.cases.splits import SPLIT_NAMES
from client.intake.source import (
    ImportSource,
    SourceRow,
    SourceRows,
    compiled_pattern,
    file_loader,
    patient_from_name,
)
from common.errors import InputRefused
from common.imaging import DEFAULT_LIMITS, ImageLimits


def read_tree(source: ImportSource, *, limits: ImageLimits = DEFAULT_LIMITS) -> SourceRows:
    """Open ``data/CLASS/…/file`` or ``data/SPLIT/CLASS/…/file``.

    The second is taken where every top folder is named like a split (train, val, test, …).
    Hidden files and folders, and files that lie in no class folder, are not looked at.

    Raises
    ------
    InputRefused
        If the folder is absent or holds no folder.
    """
    try:
        tops = [p.name for p in source.data.iterdir() if p.is_dir() and not p.name.startswith(".")]
    except OSError as error:
        raise InputRefused(
            f"The data folder {source.data} cannot be read ({error.strerror}).",
            action="Name the folder with --data.",
            code="data-missing",
        ) from error
    if not tops:
        raise InputRefused(
            f"{source.data} holds neither a labels.csv nor class folders.",
            action="Name the CSV with --labels, or put each class in a folder of its name.",
            code="data-layout",
        )
    with_splits = all(name.lower() in SPLIT_NAMES for name in tops)
    files = sorted(tree_files(source.data))
    pattern = compiled_pattern(source.patient_pattern)
    return SourceRows(len(files), _rows(source, files, with_splits, pattern, limits))


def tree_files(root: Path) -> Iterator[tuple[str, ...]]:
    """Yield the files below a folder as path parts; hidden files and folders are left out."""
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        parts = Path(folder).relative_to(root).parts
        for name in names:
            if not name.startswith("."):
                yield (*parts, name)


def _rows(
    source: ImportSource,
    files: list[tuple[str, ...]],
    with_splits: bool,
    pattern: re.Pattern[str] | None,
    limits: ImageLimits,
) -> Iterator[SourceRow]:
    depth = 1 if with_splits else 0
    for number, parts in enumerate(files, start=1):
        if len(parts) < depth + 2:
            continue
        file = "/".join(parts)
        yield SourceRow(
            number=number,
            file=file,
            load=file_loader(source.data, file, limits.bytes),
            label=parts[depth],
            patient_id=patient_from_name(pattern, file),
            split=parts[0] if with_splits else None,
        )
