"""May this case come in? Decided against what is stored, inside one write transaction."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Select, or_, select
from sqlalchemy.orm import Session

from client.cases.case import Case, DuplicateCase, NewCase, age_band, as_case, normal_sex
from client.cases.pseudonyms import Pseudonyms
from client.cases.splits import draw_split
from client.cases.tables import CaseRow, PatientRow
from client.review.flagging import Flagging
from client.review.flags import BURNED_IN_TEXT
from client.review.near_duplicates import Compared
from client.review.opinions import IMPORT, GivenOpinion
from client.review.recording import blocking_codes, keep_opinion, opinions, said_by_import
from client.review.settings import ReviewSettings
from common.errors import CaseRefused

_QUERY_SIZE = 400  # SQLite takes at most 999 parameters where it is old


def find_stored(session: Session, cases: Sequence[NewCase]) -> dict[tuple[str, str], CaseRow]:
    """Return the stored rows that show the same image, by (task, digest) and (task, pixels)."""
    found: dict[tuple[str, str], CaseRow] = {}
    for part in _parts(cases):
        query: Select[CaseRow] = select(CaseRow).where(
            CaseRow.task.in_({c.task for c in part}),
            or_(
                CaseRow.digest.in_([c.image.digest for c in part]),
                CaseRow.pixels.in_([c.image.pixels_digest for c in part]),
            ),
        )
        for row in session.scalars(query):
            found[row.task, row.digest] = found[row.task, row.pixels] = row
    return found


@dataclass(frozen=True)
class Admitted:
    """A case that came in, or a stored one that it is a copy of."""

    row: CaseRow
    split: str
    duplicate: bool = False

    def case(self) -> Case | DuplicateCase:
        """Return it as it stands; after `Admission.finish`."""
        case = as_case(self.row, self.split)
        return DuplicateCase(case) if self.duplicate else case


class Admission:
    """One transaction's view of patients and images, kept current as cases are admitted.

    Parameters
    ----------
    session : Session
        Inside a write transaction that no other writer shares.
    pseudonyms : Pseudonyms
    holdout_fraction : float
    rules : ReviewSettings
        By which a reader's label counts.
    cases : sequence of NewCase
        All that will be asked, so that the database is asked once.
    flagging : Flagging
        Looks at every new case.
    compared : Compared
        Its comparison of the new images, from before the transaction.
    """

    def __init__(
        self,
        session: Session,
        pseudonyms: Pseudonyms,
        holdout_fraction: float,
        cases: Sequence[NewCase],
        *,
        rules: ReviewSettings,
        flagging: Flagging,
        compared: Compared,
    ) -> None:
        self._session = session
        self._pseudonyms = pseudonyms
        self._holdout_fraction = holdout_fraction
        self._rules, self._flagging, self._compared = rules, flagging, compared
        self._stored = find_stored(session, cases)
        self._now = datetime.now(UTC)  # after the wait for the lock: moments follow commits
        self._patients = self._find_patients(cases)
        self._new_patients: list[PatientRow] = []
        self._new_cases: list[tuple[CaseRow, NewCase]] = []
        self._opinions: list[tuple[CaseRow, GivenOpinion, tuple[str, ...]]] = []

    def admit(self, new: NewCase) -> Admitted | CaseRefused:
        """Take a case in, or say why not. Nothing is written before `finish`."""
        try:
            key = self._patient_key(new)
            stored = self._same_image(new)
            if stored is not None:
                return self._meet_stored(new, key, stored)
            patient = self._patient(new, key)
        except CaseRefused as refusal:
            return refusal
        return self._insert(new, patient)

    def finish(self) -> None:
        """Send the new rows to the database: patients first, whom the cases refer to.

        Then the flags, which may hold a case, and the readers' labels, which count as opinions.
        """
        new_cases = [new for _, new in self._new_cases]
        compared = self._flagging.compare(self._session, new_cases, self._compared)
        self._session.add_all(self._new_patients)
        self._session.flush()
        self._session.add_all(row for row, _ in self._new_cases)
        self._session.flush()
        flagged = [(row, _codes(new)) for row, new in self._new_cases]
        raised = self._flagging.look(self._session, flagged, compared)
        for row, _ in self._new_cases:
            if raised[row.id] & set(self._rules.blocking):
                self._hold(row)
        for row, given, warnings in self._opinions:
            keep_opinion(self._session, row, given, self._rules, warnings=warnings)
        self._session.flush()

    def _hold(self, row: CaseRow) -> None:
        """Take the label off an imported case with a blocking flag: it is a voice, and waits."""
        if row.label is not None:
            given = GivenOpinion(IMPORT, "correct", row.label, "import")
            row.label, row.status, row.confirmed_at = None, "waiting", None
            self._opinions.append((row, given, ()))

    def _patient_key(self, new: NewCase) -> str:
        if new.patient_id is None:
            return self._pseudonyms.unnamed(new.image.pixels_digest)
        return self._pseudonyms.patient(new.patient_id)

    def _same_image(self, new: NewCase) -> CaseRow | None:
        by_bytes = self._stored.get((new.task, new.image.digest))
        return by_bytes or self._stored.get((new.task, new.image.pixels_digest))

    def _meet_stored(self, new: NewCase, key: str, stored: CaseRow) -> Admitted:
        patient = self._patients[stored.patient]
        if stored.status == "withdrawn":
            raise _withdrawn("case-withdrawn", "image")
        if new.patient_id is not None and key != stored.patient:
            raise _conflict("for another patient")
        if new.label is not None and stored.label not in (None, new.label):
            raise _conflict("with another label")
        _check_side(new, patient)
        if stored.label is not None or new.label is None or self._is_no_news(new, stored):
            return Admitted(stored, patient.split, duplicate=True)
        self._label_stored(new, stored)
        return Admitted(stored, patient.split)

    def _label_stored(self, new: NewCase, stored: CaseRow) -> None:
        """Take a label that comes after its image: a reader's as an opinion.

        An import's stands by itself, unless somebody has said something of the case already.
        """
        fresh = any(stored is row for row, _ in self._new_cases)
        read = new.reader is not None or (not fresh and self._has_review(stored))
        if read:
            self._opinions.append((stored, _opinion(new), new.warnings))
        else:
            stored.label, stored.status, stored.confirmed_at = new.label, "confirmed", self._now

    def _is_no_news(self, new: NewCase, stored: CaseRow) -> bool:
        said = opinions(self._session, stored.id)
        return new.reader is None and said_by_import(said, new.label)

    def _has_review(self, stored: CaseRow) -> bool:
        said = opinions(self._session, stored.id)
        return bool(said or blocking_codes(self._session, stored.id, self._rules, ()))

    def _patient(self, new: NewCase, key: str) -> PatientRow:
        patient = self._patients.get(key)
        if patient is None:
            split = new.split or draw_split(key, self._pseudonyms, self._holdout_fraction)
            patient = PatientRow(key=key, split=split, created_at=self._now, withdrawn_at=None)
            self._patients[key] = patient
            self._new_patients.append(patient)
        if patient.withdrawn_at is not None:
            raise _withdrawn("patient-withdrawn", "patient")
        _check_side(new, patient)
        return patient

    def _insert(self, new: NewCase, patient: PatientRow) -> Admitted:
        label = new.label if new.reader is None else None
        row = CaseRow(
            id=uuid.uuid4().hex,
            task=new.task,
            patient=patient.key,
            digest=new.image.digest,
            pixels=new.image.pixels_digest,
            likeness=new.image.likeness,
            label=label,
            status="waiting" if label is None else "confirmed",
            source=new.source,
            age_band=age_band(new.age),
            sex=normal_sex(new.sex),
            created_at=self._now,
            confirmed_at=None if label is None else self._now,
        )
        self._stored[row.task, row.digest] = self._stored[row.task, row.pixels] = row
        self._new_cases.append((row, new))
        if new.label is not None and new.reader is not None:
            self._opinions.append((row, _opinion(new), new.warnings))
        return Admitted(row, patient.split)

    def _find_patients(self, cases: Sequence[NewCase]) -> dict[str, PatientRow]:
        keys = {row.patient for row in self._stored.values()}
        for case in cases:
            try:
                keys.add(self._patient_key(case))
            except CaseRefused:  # said once, when the case is asked for
                continue
        found: dict[str, PatientRow] = {}
        ordered = sorted(keys)
        for start in range(0, len(ordered), _QUERY_SIZE):
            query = select(PatientRow).where(
                PatientRow.key.in_(ordered[start : start + _QUERY_SIZE])
            )
            found.update((row.key, row) for row in self._session.scalars(query))
        return found


def _parts(cases: Sequence[NewCase]) -> Iterator[Sequence[NewCase]]:
    for start in range(0, len(cases), _QUERY_SIZE):
        yield cases[start : start + _QUERY_SIZE]


def _codes(new: NewCase) -> tuple[str, ...]:
    return (*new.flags, BURNED_IN_TEXT) if new.image.writing else new.flags


def _opinion(new: NewCase) -> GivenOpinion:
    if new.reader is None:
        return GivenOpinion(IMPORT, "correct", new.label, "import")
    return GivenOpinion(new.reader, "correct", new.label, "upload", new.saw)


def _check_side(new: NewCase, patient: PatientRow) -> None:
    if new.split is not None and new.split != patient.split:
        raise CaseRefused(
            f"The patient is already on the {patient.split} side.",
            meaning="A patient's images must never be on both sides of the split.",
            action="Correct the split column, or leave it out.",
            code="patient-split-conflict",
        )


def _withdrawn(code: str, subject: str) -> CaseRefused:
    return CaseRefused(
        f"This {subject} was withdrawn.", meaning="It is not taken in again.", code=code
    )


def _conflict(how: str) -> CaseRefused:
    return CaseRefused(
        f"The same image is stored {how}.",
        meaning="One of the two is wrong.",
        action="Find out which (`wardround site import --show-files` names the files), and correct "
        "it at its source.",
        code="case-conflict",
    )
