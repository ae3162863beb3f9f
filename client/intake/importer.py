"""Importing cases: read, check, store in batches, and sum up.

One bad row never stops the rest. A batch, of 256 rows or 256 MiB, is durable before the next is
read (but for as many rows as there are threads); an import that was killed is simply run again, and
finds what it had stored.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace

from client.cases.accepted_image import AcceptedImage, accept_image
from client.cases.case import NewCase
from client.cases.splits import Split, parse_split
from client.cases.store import CaseStore
from client.dicom.decoder import DicomDecoder
from client.dicom.intake import DicomIntake
from client.dicom.modalities import accepted_modalities, make_intake
from client.intake.batches import checked_batches
from client.intake.csv_source import read_csv
from client.intake.dicom_source import read_dicom
from client.intake.holdout_warnings import with_holdout_warnings
from client.intake.labels import LabelReader
from client.intake.npz_source import read_npz
from client.intake.source import ImportSource, SourceRow, SourceRows
from client.intake.summary import ImportSummary
from client.intake.tally import ImportTally
from client.intake.tree_source import read_tree
from client.settings import SiteSettings
from common.errors import Busy, CaseRefused, InputRefused
from common.imaging import DEFAULT_LIMITS, ImageLimits
from common.recipe import Recipe

__all__ = [
    "ImportSource",
    "ImportSummary",
    "SourceRow",
    "import_cases",
    "import_folder",
    "read_rows",
]

BATCH_ROWS = 256
BATCH_BYTES = 256 * 2**20
_MAXIMUM_THREADS = 8

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Checked:
    """A row that may be stored."""

    row: SourceRow
    image: AcceptedImage
    label: str | None
    split: Split | None
    flags: tuple[str, ...]


def read_rows(source: ImportSource, *, limits: ImageLimits = DEFAULT_LIMITS) -> SourceRows:
    """Open a source, whichever its layout; images are not read yet.

    Raises
    ------
    InputRefused
        If the source as a whole cannot be used.
    """
    readers = {"csv": read_csv, "tree": read_tree, "npz": read_npz, "dicom": read_dicom}
    return readers[source.resolved_layout()](source, limits=limits)


def import_cases(
    target: CaseStore | SiteSettings,
    recipe: Recipe,
    source: ImportSource,
    *,
    keep: Callable[[SourceRow], bool] | None = None,
    progress: Callable[[int, int], None] | None = None,
    limits: ImageLimits = DEFAULT_LIMITS,
    dicom: DicomIntake | None = None,
) -> ImportSummary:
    """Import a source into a site's case store.

    Parameters
    ----------
    target : CaseStore or SiteSettings
        Where to.
    recipe : Recipe
        Its name is the cases' task; its classes are the labels.
    source : ImportSource
        Where from.
    keep : callable, optional
        Tells of a row whether this site is to have it: how one source is shared out over
        several hospitals. Rows that it leaves out are only counted.
    progress : callable, optional
        Called with rows done and rows in all (about) after each batch.
    limits : ImageLimits
        What to refuse unseen.
    dicom : DicomIntake, optional
        How DICOM files are taken in; by the site's settings, or by the recipe alone.

    Returns
    -------
    ImportSummary
        With settings, also what the site's policy makes of its holdout.

    Raises
    ------
    InputRefused
        If the source as a whole cannot be used.
    StoreError, ProcessError
        If the database or the disk failed, or no DICOM decoder starts; all batches before are kept.
    """
    if isinstance(target, SiteSettings):
        store, intake = CaseStore.open(target), make_intake(target, recipe)
        try:
            summary = import_cases(
                *(store, recipe, source),
                keep=keep,
                progress=progress,
                limits=limits,
                dicom=intake,
            )
            return with_holdout_warnings(summary, store, recipe, target)
        finally:
            intake.close()
            store.close()
    if dicom is None:
        with closing(DicomIntake(DicomDecoder(), accepted_modalities(recipe))) as intake:
            return import_cases(
                *(target, recipe, source),
                keep=keep,
                progress=progress,
                limits=limits,
                dicom=intake,
            )
    labels = LabelReader(recipe, source.aliases, source.class_order)
    opened = read_rows(source, limits=limits)
    tally = ImportTally(recipe, show_files=source.show_files)
    wanted = _wanted(opened.rows, source, keep, tally)
    done, threads = 0, min(_MAXIMUM_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        for batch in checked_batches(
            pool,
            wanted,
            lambda row: _check(row, labels, limits, dicom),
            ahead=threads,
            most_rows=BATCH_ROWS,
            most_bytes=BATCH_BYTES,
            size=_bytes_held,
        ):
            _store_batch(target, recipe.name, batch, tally)
            done += len(batch)
            if progress is not None:
                progress(done, max(done, opened.total - tally.left_out))
            del batch  # else its files would be in memory beside the next one's
    summary = tally.summary(target)
    logger.info("import-done kept=%d refused=%d", summary.kept, summary.refused_count)
    return summary


import_folder = import_cases


def _wanted(
    rows: Iterator[SourceRow],
    source: ImportSource,
    keep: Callable[[SourceRow], bool] | None,
    tally: ImportTally,
) -> Iterator[SourceRow]:
    """Yield this site's rows; a source that breaks off midway ends here, with a warning."""
    found, taken = set(), False
    try:
        for row in rows:
            found.add(row.site)
            # A row that could not be parsed has no site; it is refused at the site that asks.
            foreign = source.site is not None and row.file and row.site != source.site
            if foreign or (keep is not None and not keep(row)):
                tally.leave_out()
                continue
            taken = True
            yield row
    except InputRefused as error:
        tally.note("source-broken", error.line())
    if source.site is not None and not taken:
        names = ", ".join(sorted(name for name in found if name)) or "none"
        tally.note("site-unknown", f"No row belongs to site {source.site!r}. Sites there: {names}.")


def _check(
    row: SourceRow, labels: LabelReader, limits: ImageLimits, dicom: DicomIntake
) -> _Checked | InputRefused:
    """Check one row, the image last; runs in a thread of the pool (Pillow lets others run)."""
    try:
        label = labels.read(row.label) if row.file and row.labels is None else None
        split = parse_split(row.split)
        taken = dicom.take(row.load())
        if row.labels is not None:
            said = _label_in_tree(row, "" if taken.header is None else taken.header.instance)
            label = None if said is None else labels.read(said)
        row = replace(
            row,
            patient_id=row.patient_id or taken.patient_id,
            age=row.age or taken.age,
            sex=row.sex or taken.sex,
        )
        flags = () if taken.header is None else taken.header.flags
        return _Checked(row, accept_image(taken.image, limits=limits), label, split, flags)
    except InputRefused as refusal:
        return refusal
    except Busy as busy:
        return CaseRefused(busy.what, action=busy.action, code=busy.code)


def _label_in_tree(row: SourceRow, instance: str) -> str | None:
    """Return what a DICOM tree's CSV says of a file, by its UID, its path or its own name.

    Raises
    ------
    CaseRefused
        ``label-ambiguous`` if they differ, or the CSV names it only as it names other files.
    """
    by_uid = (row.labels or {}).get(instance)
    if by_uid is not None and row.label not in (None, by_uid):
        raise CaseRefused(
            "The labels CSV gives this image one label by its file and another by its UID.",
            action="Correct the CSV.",
            code="label-ambiguous",
        )
    if by_uid is None and row.ambiguous:
        raise CaseRefused(
            "The labels CSV names several files of this name at once.",
            meaning="They may be of different patients.",
            action="Name each by its path below the data folder, or by its SOP Instance UID.",
            code="label-ambiguous",
        )
    return by_uid or row.label


def _bytes_held(checked: _Checked | InputRefused) -> int:
    return len(checked.image.data) if isinstance(checked, _Checked) else 0


def _store_batch(
    store: CaseStore,
    task: str,
    batch: list[tuple[SourceRow, _Checked | InputRefused]],
    tally: ImportTally,
) -> None:
    accepted: list[tuple[SourceRow, _Checked]] = []
    for row, checked in batch:
        if isinstance(checked, InputRefused):
            tally.refuse(row, checked)
        else:
            tally.claim(checked.row.patient_id, checked.split)
            accepted.append((checked.row, checked))
    results = store.add_many([_new_case(task, row, checked) for row, checked in accepted])
    for (row, checked), result in zip(accepted, results, strict=True):
        tally.settle(row, checked.label, result)


def _new_case(task: str, row: SourceRow, checked: _Checked) -> NewCase:
    return NewCase(
        image=checked.image,
        task=task,
        patient_id=row.patient_id,
        label=checked.label,
        source="import",
        flags=checked.flags,
        age=row.age,
        sex=row.sex,
        split=checked.split,
    )
