"""What is imported: a source, and the rows that every layout is read into."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from common.errors import CaseRefused, InputRefused

Layout = Literal["csv", "tree", "npz", "dicom"]


@dataclass(frozen=True)
class CsvColumns:
    """Names of the columns; ``file`` and ``label`` must exist.

    The others may be absent under their default names. One that was named by hand must exist.
    """

    file: str = "file"
    label: str = "label"
    patient: str = "patient_id"
    site: str = "site"
    age: str = "age"
    sex: str = "sex"
    split: str = "split"


@dataclass(frozen=True)
class ImportSource:
    """A folder or file to import from, and how to read it.

    Attributes
    ----------
    data : Path
        The images' folder, or the ``.npz`` file.
    labels : Path or None
        The labels CSV; ``labels.csv`` in ``data`` when it is there.
    layout : {"csv", "tree", "npz", "dicom"} or None
        None: npz by its suffix, CSV where there is one, else a class-per-folder tree. DICOM
        files may stand in for pictures in the first two; ``dicom`` is a tree of DICOM files in
        any order, with a CSV that names them by SOP Instance UID or path, or without labels.
    columns : CsvColumns
        Names of the CSV's columns.
    site : str or None
        Keep only rows with this value in the site column: one hospital's share.
    aliases : mapping of str to str
        Labels as the source writes them, to classes of the recipe.
    class_order : tuple of str
        What the numeric labels 0, 1, … mean. Needed for npz: data sets disagree with recipes
        (BreastMNIST's 0 is malignant), and a silent guess would train on swapped labels.
    patient_pattern : str or None
        Regular expression; its first group, found in the file's name, is the patient id where
        no column gives one.
    show_files : bool
        Name files in the summary's refused rows; off, since file names may name patients.
    """

    data: Path
    labels: Path | None = None
    layout: Layout | None = None
    columns: CsvColumns = CsvColumns()
    site: str | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)
    class_order: tuple[str, ...] = ()
    patient_pattern: str | None = None
    show_files: bool = False

    def resolved_layout(self) -> Layout:
        """Return the layout, found out by looking where it was not said."""
        if self.layout is not None:
            return self.layout
        if self.data.suffix.lower() == ".npz":
            return "npz"
        return "csv" if self.labels_path().is_file() or self.labels is not None else "tree"

    def labels_path(self) -> Path:
        """Return where the labels CSV is, or would be."""
        return self.labels or self.data / "labels.csv"


@dataclass(frozen=True)
class SourceRow:
    """One row of a source, as written there; nothing is checked yet.

    Attributes
    ----------
    number : int
        Row of the CSV as a spreadsheet shows it (the header is row 1), else the position from 1.
    file : str
        Path below the data folder.
    load : callable
        Returns the image file's bytes; raises `InputRefused`.
    labels : mapping of str to str, optional
        Labels by SOP Instance UID, of a DICOM tree: such a row may also have no label, and its
        case then waits for one.
    ambiguous : bool
        Of a DICOM tree: a label was given to the file's bare name, which other files have, too.
    """

    number: int
    file: str
    load: Callable[[], bytes]
    label: str | None = None
    patient_id: str | None = None
    site: str | None = None
    age: str | None = None
    sex: str | None = None
    split: str | None = None
    labels: Mapping[str, str] | None = None
    ambiguous: bool = False


@dataclass(frozen=True)
class SourceRows:
    """A source opened: how many rows about, and the rows, read as they are asked for."""

    total: int
    rows: Iterator[SourceRow]


def refused_row(number: int, file: str, refusal: InputRefused) -> SourceRow:
    """Return a row that cannot be read, which says so when it is loaded."""

    def load() -> bytes:
        raise refusal

    return SourceRow(number=number, file=file, load=load)


def file_loader(root: Path, file: str, maximum_bytes: int) -> Callable[[], bytes]:
    """Return a reader of one file below ``root``.

    The reader raises `CaseRefused` with ``file-outside`` (absolute, ``..``, or a link that
    leaves the folder), ``file-missing`` or ``file-unreadable``.
    """

    def load() -> bytes:
        try:
            path = (root / file).resolve()
            inside = path.is_relative_to(root.resolve())
            regular = inside and path.is_file()
            if regular and path.stat().st_size <= maximum_bytes:
                return path.read_bytes()
        except (OSError, ValueError, RuntimeError) as error:  # denied, NUL byte, link loop
            raise CaseRefused(
                f"The file cannot be read ({type(error).__name__}).", code="file-unreadable"
            ) from error
        if not inside:
            raise CaseRefused("The file lies outside the data folder.", code="file-outside")
        if not regular:
            raise CaseRefused("The file is missing.", code="file-missing")
        raise CaseRefused("The file is too large.", code="image-too-large")

    return load


def compiled_pattern(pattern: str | None) -> re.Pattern[str] | None:
    """Compile a patient pattern.

    Raises
    ------
    InputRefused
        If it is no regular expression with a group.
    """
    if pattern is None:
        return None
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputRefused(f"The patient pattern is no regular expression: {error}.") from error
    if compiled.groups < 1:
        raise InputRefused(
            "The patient pattern has no group.",
            action=r"Put the patient's part in brackets, as in '^(\d+)_'.",
        )
    return compiled


def patient_from_name(pattern: re.Pattern[str] | None, file: str) -> str | None:
    """Return the pattern's first group in a file's name without suffix, if it is found."""
    found = pattern.search(Path(file).stem) if pattern else None
    return found[1] if found else None
