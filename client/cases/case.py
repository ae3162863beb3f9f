"""A case as the rest of the site sees it, and what is known before it is stored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, cast

from client.cases.accepted_image import AcceptedImage
from client.cases.splits import Split
from client.cases.tables import CaseRow
from client.review.opinions import SeenAnswer
from common.errors import CaseRefused

Status = Literal["waiting", "confirmed", "withdrawn"]
Sex = Literal["female", "male", "other"]

_SEXES: dict[str, Sex] = {
    **dict.fromkeys(("f", "female", "w", "woman", "weiblich"), "female"),
    **dict.fromkeys(("m", "male", "man", "männlich"), "male"),
    **dict.fromkeys(("o", "other", "d", "diverse", "divers", "x"), "other"),
}
_UNKNOWN = frozenset({"", "unknown", "u", "na", "n/a", "nan", "none", "null", "-", "?"})
# DICOM VR "AS": three digits and Y, M, W or D (PS3.5, 6.2).
_AGE = re.compile(r"(\d{1,3})(?:\.\d+)?\s*([ymwd]?)", re.IGNORECASE)


@dataclass(frozen=True)
class Case:
    """One stored image of one patient.

    Attributes
    ----------
    id : str
        32 hex digits, random; says nothing.
    task : str
        The recipe's name.
    patient : str
        Pseudonym, 64 hex digits.
    digest : str
        SHA-256 of the stored bytes.
    label : str or None
        A class of the task, once known.
    status : {"waiting", "confirmed", "withdrawn"}
    split : {"train", "holdout"}
        The patient's side.
    age_band : str or None
        Ten years, such as ``"40-49"``; ``"90+"`` from 90 on.
    sex : {"female", "male", "other"} or None
    created_at, confirmed_at : datetime
        UTC; ``confirmed_at`` is when it was confirmed first, None if it never was.
    """

    id: str
    task: str
    patient: str
    digest: str
    label: str | None
    status: Status
    split: Split
    age_band: str | None
    sex: Sex | None
    created_at: datetime
    confirmed_at: datetime | None


@dataclass(frozen=True)
class NewCase:
    """A case to be stored.

    Attributes
    ----------
    image : AcceptedImage
    task : str
        The recipe's name.
    patient_id : str or None
        As the hospital writes it; only its pseudonym is kept. Without one the image stands
        for a patient of its own.
    label : str or None
        A class of the task (the caller checks it against the recipe). One that came with an
        import means confirmed.
    source : str
        Where it came from, at most 16 characters: ``import``, ``upload``, ``phantom``.
    age : float or str, optional
        In years, or as DICOM writes it.
    sex : str, optional
    split : {"train", "holdout"}, optional
        The side that a new patient is to have; drawn by keyed hash otherwise.
    reader : str, optional
        The account whose opinion the label is, which may have to wait for a second one; without
        one it came with an import.
    saw : SeenAnswer, optional
        The model's answer that the reader had before them.
    warnings : tuple of str
        The codes with which that answer came.
    flags : tuple of str
        Codes of what is to be looked at, such as the header or the picture gave cause for.
    """

    image: AcceptedImage
    task: str
    patient_id: str | None
    label: str | None
    source: str
    age: float | str | None = None
    sex: str | None = None
    split: Split | None = None
    reader: str | None = None
    saw: SeenAnswer | None = None
    warnings: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class PatientHistory:
    """A patient's side, and since when (UTC) each task could use a confirmed case of theirs.

    ``withdrawn`` is when they withdrew, None if they have not.
    """

    split: Split
    confirmed: Mapping[str, datetime]
    withdrawn: datetime | None = None


@dataclass(frozen=True)
class ClassCount:
    """Confirmed cases of one class, by side."""

    label: str
    train: int
    holdout: int


@dataclass(frozen=True)
class CaseCounts:
    """How many cases a task has. Exact: for the site's own eyes only."""

    waiting: int
    confirmed: int
    withdrawn: int
    train_patients: int
    holdout_patients: int
    classes: tuple[ClassCount, ...]

    @property
    def train(self) -> int:
        """Confirmed training cases."""
        return sum(c.train for c in self.classes)

    @property
    def holdout(self) -> int:
        """Confirmed holdout cases."""
        return sum(c.holdout for c in self.classes)


class DuplicateCase(CaseRefused):
    """The same pixels are stored already, for the same patient; ``case`` is the stored one."""

    default_code = "case-duplicate"

    def __init__(self, case: Case) -> None:
        super().__init__("This image is stored already.", meaning="Nothing was added.")
        self.case = case


def as_case(row: CaseRow, split: str) -> Case:
    """Return a row as a frozen case."""
    return Case(
        id=row.id,
        task=row.task,
        patient=row.patient,
        digest=row.digest,
        label=row.label,
        status=cast(Status, row.status),
        split=cast(Split, split),
        age_band=row.age_band,
        sex=cast("Sex | None", row.sex),
        created_at=row.created_at,
        confirmed_at=row.confirmed_at,
    )


def age_band(age: float | str | None) -> str | None:
    """Return the ten-year band of an age: all that is kept of it.

    ``45``, ``"45.0"``, ``"045Y"`` and ``"007M"`` are understood; blank, ``unknown`` and ages
    beyond 130 years give None. 90 and above is one band: such ages are rare enough to name a
    person (HIPAA Safe Harbor, 45 CFR 164.514(b)(2)(i)(C)).
    """
    text = "" if age is None else str(age).strip()
    found = _AGE.fullmatch(text)
    if found is None:
        return None
    unit = found[2].lower()
    years = int(found[1]) if unit in ("", "y") else 0
    if unit == "m":
        years = int(found[1]) // 12
    elif unit == "w":
        years = int(found[1]) // 52
    if years > 130:
        return None
    if years >= 90:
        return "90+"
    return f"{years // 10 * 10}-{years // 10 * 10 + 9}"


def normal_sex(sex: str | None) -> Sex | None:
    """Return ``female``, ``male``, ``other``, or None where it is unknown or not understood."""
    text = "" if sex is None else sex.strip().lower()
    return None if text in _UNKNOWN else _SEXES.get(text)
