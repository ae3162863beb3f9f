"""The demo's hospitals: phantoms, or real images divided by site or by patient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from client.intake.importer import import_cases, read_rows
from client.intake.labels import LabelReader
from client.intake.source import ImportSource, SourceRow
from client.intake.summary import ImportSummary
from client.settings import SiteSettings
from common.errors import CaseRefused, InputRefused, WardroundError
from common.recipe import Recipe
from deploy.demo.checks import check_rows
from simulations.hospitals import ByColumn, ByPatientHash, split_into_hospitals
from simulations.hospitals import Hospital as Share
from simulations.phantoms import write_phantom_folder
from simulations.scanners import scanner_for_site

PHANTOM_HOSPITALS = ("northfield", "riverside", "st-anne")
PHANTOM_PATIENTS = 200
PHANTOM_NEWCOMERS = 40
HASHED_HOSPITALS = 4
NEWCOMER_SHARE = 0.1
MOST_NEWCOMERS = 40
_TWO_HOSPITALS = (
    "Fill the column `site` in for every row, with two hospitals at least; or leave the column "
    f"out, and the patients are dealt out to {HASHED_HOSPITALS} hospitals."
)


@dataclass(frozen=True)
class Newcomer:
    """A case that arrives after the first release; ``read`` gives the image file's bytes."""

    label: str
    patient_id: str | None
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Hospital:
    """A hospital: the rows that it imports at first, and what arrives over HTTP later."""

    name: str
    source: ImportSource
    rows: tuple[SourceRow, ...]
    newcomers: tuple[Newcomer, ...]

    def import_into(self, settings: SiteSettings, recipe: Recipe) -> ImportSummary:
        """Import the hospital's first cases into its site."""
        # By row: another hospital may have a patient of the same number.
        mine = {row.number for row in self.rows}
        return import_cases(settings, recipe, self.source, keep=lambda row: row.number in mine)

    @property
    def patient_ids(self) -> set[str | None]:
        """The ids of its patients as the table writes them, those who arrive later included."""
        return {row.patient_id for row in self.rows} | {case.patient_id for case in self.newcomers}

    def sample_images(self, count: int) -> list[bytes]:
        """Return the bytes of a few of its images that can be read."""
        images: list[bytes] = []
        for row in self.rows:
            if len(images) == count:
                break
            try:
                images.append(row.load())
            except WardroundError:
                continue  # the import's summary tells about it
        return images


def phantom_hospitals(folder: Path, recipe: Recipe, *, seed: int) -> tuple[Hospital, ...]:
    """Draw three hospitals whose scanners differ; new patients arrive at the first one."""
    rng = np.random.default_rng(seed)
    for index, name in enumerate(PHANTOM_HOSPITALS):
        patients = PHANTOM_PATIENTS + (PHANTOM_NEWCOMERS if index == 0 else 0)
        write_phantom_folder(
            folder,
            recipe,
            scanner_for_site(index),
            patients,
            rng,
            patient_prefix=f"{name}-",
            site=name,
            most_images=2,
        )
    source = ImportSource(folder)
    rows = tuple(read_rows(source).rows)
    shares = split_into_hospitals(rows, ByColumn())
    return tuple(_hospital(source, recipe, s, s.name == PHANTOM_HOSPITALS[0]) for s in shares)


def real_hospitals(source: ImportSource, recipe: Recipe) -> tuple[Hospital, ...]:
    """Divide a labelled data set by its site column, or by patient where it has none.

    The hospital with the most images keeps some patients back: they arrive over HTTP later.

    Raises
    ------
    InputRefused
        If the table cannot be read, makes fewer than two hospitals, or has nothing usable for one.
    """
    rows = tuple(read_rows(source).rows)
    by_site = any(row.site for row in rows)
    rule = ByColumn() if by_site else ByPatientHash(HASHED_HOSPITALS)
    try:
        shares = split_into_hospitals(rows, rule)
    except InputRefused as error:
        raise InputRefused(
            error.what, meaning=error.meaning, action=_TWO_HOSPITALS, code=error.code
        ) from error
    for share in shares:
        check_rows(share.name, share.rows, source, recipe)
    largest = max(shares, key=lambda share: len(share.rows))
    return tuple(_hospital(source, recipe, share, share is largest) for share in shares)


def _hospital(
    source: ImportSource, recipe: Recipe, share: Share, expects_newcomers: bool
) -> Hospital:
    labels = _Labels(source, recipe)
    later = _later(share, labels) if expects_newcomers else frozenset()
    newcomers = tuple(
        Newcomer(labels.of(row) or "", row.patient_id, row.load)
        for row in share.rows
        if _patient(row) in later
    )
    now = tuple(row for row in share.rows if _patient(row) not in later)
    return Hospital(share.name, source, now, newcomers)


class _Labels:
    """What rows' labels mean to a recipe."""

    def __init__(self, source: ImportSource, recipe: Recipe) -> None:
        self._reader = LabelReader(recipe, source.aliases, source.class_order)

    def of(self, row: SourceRow) -> str | None:
        """Return a row's class; None where its label is none of the recipe's."""
        try:
            return self._reader.read(row.label)
        except CaseRefused:
            return None


def _later(share: Share, labels: _Labels) -> frozenset[str]:
    """Choose the patients who arrive later: the last ones, whose labels the recipe knows."""
    known = {True: set[str](), False: set[str]()}
    for row in share.rows:
        known[labels.of(row) is not None].add(_patient(row))
    usable = known[True] - known[False]
    ordered = [p for p in dict.fromkeys(_patient(row) for row in share.rows) if p in usable]
    count = min(MOST_NEWCOMERS, int(len(ordered) * NEWCOMER_SHARE) + 1)
    return frozenset(ordered[-count:])


def _patient(row: SourceRow) -> str:
    return row.patient_id or row.file
