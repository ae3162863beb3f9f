"""A tree of DICOM files in any order, with a CSV of labels or without."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping

from client.intake.csv_source import read_text
from client.intake.source import ImportSource, SourceRow, SourceRows, file_loader
from client.intake.tree_source import tree_files
from common.errors import InputRefused
from common.imaging import DEFAULT_LIMITS, ImageLimits


def read_dicom(source: ImportSource, *, limits: ImageLimits = DEFAULT_LIMITS) -> SourceRows:
    """Open a tree of DICOM files.

    The labels CSV, if there is one, has a column of paths, file names or SOP Instance UIDs
    (``file``, ``--file-column``) and one of labels. A file that it does not name has no label.
    A bare name counts where one file alone has it: every patient of a DICOM medium may have an
    ``IM0001``, and such files are refused unless their path or UID is named. `DICOMDIR` and hidden
    files are not looked at.

    Raises
    ------
    InputRefused
        If the folder is absent or the CSV cannot be used.
    """
    if not source.data.is_dir():
        raise InputRefused(
            f"The data folder {source.data} cannot be read.",
            action="Name the folder with --data.",
            code="data-missing",
        )
    labels: Mapping[str, str] = {}
    path = source.labels_path()
    if source.labels is not None or path.is_file():
        labels = _labels(source, read_text(path))
    skipped = {"DICOMDIR", path.name}
    files = sorted("/".join(p) for p in tree_files(source.data) if p[-1] not in skipped)
    return SourceRows(len(files), _rows(source, files, labels, limits))


def _labels(source: ImportSource, text: str) -> dict[str, str]:
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    columns = (source.columns.file, source.columns.label)
    for column in columns:
        if column not in (reader.fieldnames or ()):
            raise InputRefused(
                f"The labels CSV has no column {column!r}.",
                action="Name the right ones with --file-column and --label-column.",
                code="labels-column",
            )
    found: dict[str, str] = {}
    for row in reader:
        key, label = ((row[column] or "").strip() for column in columns)
        if key and label and found.setdefault(key, label) != label:
            raise InputRefused(
                "The labels CSV gives one file two labels.",
                action="Correct the CSV; nothing was imported.",
                code="labels-contradict",
            )
    return found


def _rows(
    source: ImportSource, files: list[str], labels: Mapping[str, str], limits: ImageLimits
) -> Iterator[SourceRow]:
    with_name = Counter(file.rpartition("/")[2] for file in files)
    for number, file in enumerate(files, start=1):
        name = file.rpartition("/")[2]
        alone = with_name[name] == 1
        yield SourceRow(
            number=number,
            file=file,
            load=file_loader(source.data, file, limits.bytes),
            label=labels.get(file) or (labels.get(name) if alone else None),
            labels=labels,
            ambiguous=not alone and name in labels and file not in labels,
        )
