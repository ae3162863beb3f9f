"""The case store: image bytes on disk, one row a case in SQL, and nothing that names a patient.

Order of writing: the bytes first, durably; then the row, in one transaction. A crash between the
two leaves bytes that no row speaks of, which is harmless; there is never a row without bytes.
All writers of one database go one at a time (SQLite: BEGIN IMMEDIATE; PostgreSQL: an advisory
lock), so what is checked inside a transaction stays true until it commits.

Patient ids, accession numbers and file names are never stored; of ages, the ten-year band.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine, Select, select
from sqlalchemy.orm import Session

from client.accepted_image import accept_image
from client.case import Case, CaseCounts, ClassCount, DuplicateCase, NewCase, as_case
from client.case_admission import Admission, find_stored
from client.case_counts import count_cases
from client.case_withdrawal import remove_withdrawn_images, withdraw
from client.image_store import ImageStore
from client.pseudonyms import Pseudonyms
from client.settings import SiteSettings
from client.splits import Split
from client.tables import CaseRow, PatientRow, StoreIdentityRow
from client.transactions import Transactions
from common.database import migrate, open_database
from common.errors import CaseRefused, ConfigurationError, NotFound
from common.imaging import DEFAULT_LIMITS, ImageLimits

__all__ = ["Case", "CaseCounts", "CaseStore", "ClassCount", "DuplicateCase", "NewCase"]

MIGRATIONS = Path(__file__).parent / "migrations"
_WRITE_LOCK = 0x43415345

logger = logging.getLogger(__name__)


class CaseStore:
    """All cases of one site.

    Parameters
    ----------
    engine : Engine
        A migrated database (`CaseStore.open` migrates).
    images : ImageStore
        Where the bytes are.
    pseudonyms : Pseudonyms
        Holder of the site's secret key.
    holdout_fraction : float
        Share of new patients held out, 0 to 0.9.

    Raises
    ------
    ConfigurationError
        If the database was filled with another pseudonym key.
    """

    def __init__(
        self, engine: Engine, images: ImageStore, pseudonyms: Pseudonyms, holdout_fraction: float
    ) -> None:
        self._engine = engine
        self._transactions = Transactions(engine, _WRITE_LOCK)
        self._images = images
        self._pseudonyms = pseudonyms
        self._holdout_fraction = holdout_fraction
        self._check_key()

    @classmethod
    def open(cls, settings: SiteSettings) -> CaseStore:
        """Open a site's store: migrate its database, clear what dead writers left.

        Raises
        ------
        ConfigurationError, StoreError
            If the key or the database cannot be used.
        """
        pseudonyms = Pseudonyms.read(settings.keys / "pseudonyms")
        images = ImageStore(settings.images)
        settings.data.chmod(0o700)
        engine = open_database(settings.database)
        migrate(engine, MIGRATIONS)
        store = cls(engine, images, pseudonyms, settings.holdout_fraction)
        images.clear_temporary()
        store._remove_withdrawn_images()
        return store

    def close(self) -> None:
        """Give the database connections back."""
        self._engine.dispose()

    def add(
        self,
        image: bytes,
        *,
        task: str,
        patient_id: str | None,
        label: str | None,
        source: str,
        age: float | str | None = None,
        sex: str | None = None,
        split: Split | None = None,
        limits: ImageLimits = DEFAULT_LIMITS,
    ) -> Case:
        """Store a case; with a label it is confirmed, without it waits.

        Parameters
        ----------
        image : bytes
            PNG, JPEG or what else `common.imaging` accepts.
        task : str
            The recipe's name.
        patient_id : str or None
            As the hospital writes it; only its pseudonym is kept. Without one the image stands
            for a patient of its own.
        label : str or None
            A class of the task (the caller checks it against the recipe).
        source : str
            Where it came from, at most 16 characters: ``import``, ``upload``, ``phantom``.
        age : float or str, optional
            In years, or as DICOM writes it.
        sex : str, optional
        split : {"train", "holdout"}, optional
            The side that a new patient is to have; drawn by keyed hash otherwise.
        limits : ImageLimits
            What to refuse unseen.

        Raises
        ------
        ImageRefused
            If it is no image that we accept.
        DuplicateCase
            If the same pixels are stored for this patient; it carries the stored case.
        CaseRefused
            ``case-conflict`` (same pixels, other patient or label), ``patient-split-conflict``,
            ``patient-withdrawn``, ``case-withdrawn`` or ``patient-id``.
        StoreError
            If the database or the disk failed; nothing is confirmed then.
        """
        accepted = accept_image(image, limits=limits)
        new = NewCase(accepted, task, patient_id, label, source, age, sex, split)
        result = self.add_many([new])[0]
        if isinstance(result, CaseRefused):
            raise result
        return result

    def add_many(self, cases: Sequence[NewCase]) -> list[Case | CaseRefused]:
        """Store many cases in one transaction; each gets its case, or why it was refused.

        A duplicate gives `DuplicateCase`. If this returns, all that was kept is durable.

        Raises
        ------
        StoreError
            If the database or the disk failed; none was added then.
        """
        with self._transactions.reading() as session:
            stored = find_stored(session, cases)
        # Withdrawn images included, which would be deleted again at once.
        fresh = [c for c in cases if not _keys(c) & stored.keys()]
        self._images.put_many(c.image.data for c in fresh)
        with self._transactions.writing() as session:
            admission = Admission(session, self._pseudonyms, self._holdout_fraction, cases)
            results = [admission.admit(case) for case in cases]
            self._keep_bytes(cases, results)
            admission.finish()
        kept = sum(isinstance(result, Case) for result in results)
        logger.info("cases-added kept=%d refused=%d", kept, len(results) - kept)
        return results

    def confirm(self, case_id: str, label: str, *, classes: Sequence[str]) -> Case:
        """Give a waiting case its label. The same label again changes nothing.

        Parameters
        ----------
        case_id : str
        label : str
            One of ``classes``.
        classes : sequence of str
            The recipe's.

        Raises
        ------
        NotFound
            If there is no such case.
        CaseRefused
            ``label-unknown``, ``case-withdrawn``, or ``case-already-confirmed`` with another label.
        """
        if label not in classes:
            raise CaseRefused(
                "The label is no class of this task.",
                action=f"Use one of {', '.join(classes)}.",
                code="label-unknown",
            )
        with self._transactions.writing() as session:
            row, split = self._row(session, case_id)
            if row.status == "withdrawn":
                raise CaseRefused("This case was withdrawn.", code="case-withdrawn")
            if row.status == "confirmed" and row.label != label:
                raise CaseRefused(
                    f"This case is confirmed as {row.label} already.",
                    action="Withdraw it if that is wrong.",
                    code="case-already-confirmed",
                )
            if row.status == "waiting":
                row.label, row.status, row.confirmed_at = label, "confirmed", datetime.now(UTC)
            case = as_case(row, split)
        logger.info("case-confirmed case=%s", case_id)
        return case

    def withdraw_patient(self, patient_id: str) -> int:
        """Take a patient out of all future training and evaluation; delete their images.

        Rows stay, without label, age and sex, so that a later import does not bring them back.

        Returns
        -------
        int
            How many cases were withdrawn.

        Raises
        ------
        NotFound
            If the patient is unknown here.
        """
        key = self._pseudonyms.patient(patient_id)
        with self._transactions.writing() as session:
            count = withdraw(session, key)
        self._remove_withdrawn_images()
        logger.info("patient-withdrawn cases=%d", count)
        return count

    def get(self, case_id: str) -> Case:
        """Return a case.

        Raises
        ------
        NotFound
            If there is none with this id.
        """
        with self._transactions.reading() as session:
            return as_case(*self._row(session, case_id))

    def image_bytes(self, case: Case) -> bytes:
        """Return a case's stored file bytes, checked against their digest.

        Raises
        ------
        StoreError
            If they are missing or damaged on disk.
        """
        return self._images.get(case.digest)

    def training_cases(self, task: str) -> list[Case]:
        """Return the confirmed cases of training patients, in the order of their digests."""
        return self._confirmed(task, "train")

    def holdout_cases(self, task: str) -> list[Case]:
        """Return the confirmed cases of holdout patients, in the order of their digests."""
        return self._confirmed(task, "holdout")

    def waiting_cases(self, task: str, *, limit: int = 100) -> list[Case]:
        """Return the cases that wait for a label, oldest first."""
        query = (
            self._select(task)
            .where(CaseRow.status == "waiting")
            .order_by(CaseRow.created_at, CaseRow.id)
            .limit(limit)
        )
        with self._transactions.reading() as session:
            return [as_case(row, split) for row, split in session.execute(query)]

    def counts(self, task: str) -> CaseCounts:
        """Count a task's cases and its patients with a confirmed case."""
        with self._transactions.reading() as session:
            return count_cases(session, task)

    def likenesses(self, task: str, split: Split) -> list[tuple[str, str]]:
        """Return (case id, perceptual hash) of a side's confirmed cases."""
        query = (
            select(CaseRow.id, CaseRow.likeness)
            .join(PatientRow, PatientRow.key == CaseRow.patient)
            .where(CaseRow.task == task, CaseRow.status == "confirmed", PatientRow.split == split)
            .order_by(CaseRow.digest)
        )
        with self._transactions.reading() as session:
            return [(case_id, likeness) for case_id, likeness in session.execute(query)]

    def _confirmed(self, task: str, split: Split) -> list[Case]:
        query = (
            self._select(task)
            .where(CaseRow.status == "confirmed", PatientRow.split == split)
            .order_by(CaseRow.digest)
        )
        with self._transactions.reading() as session:
            return [as_case(row, side) for row, side in session.execute(query)]

    @staticmethod
    def _select(task: str) -> Select[CaseRow, str]:
        return (
            select(CaseRow, PatientRow.split)
            .join(PatientRow, PatientRow.key == CaseRow.patient)
            .where(CaseRow.task == task)
        )

    @staticmethod
    def _row(session: Session, case_id: str) -> tuple[CaseRow, str]:
        found = session.execute(
            select(CaseRow, PatientRow.split)
            .join(PatientRow, PatientRow.key == CaseRow.patient)
            .where(CaseRow.id == case_id)
        ).first()
        if found is None:
            raise NotFound("There is no such case.", code="case-not-found")
        return found[0], found[1]

    def _remove_withdrawn_images(self) -> None:
        with self._transactions.writing() as session:
            remove_withdrawn_images(session, self._images)

    def _keep_bytes(self, cases: Sequence[NewCase], results: Sequence[Case | CaseRefused]) -> None:
        """Write again what a withdrawal deleted between our writing and our transaction."""
        for new, result in zip(cases, results, strict=True):
            mine = isinstance(result, Case) and result.digest == new.image.digest
            if mine and not self._images.holds(new.image.digest):
                self._images.put(new.image.data)

    def _check_key(self) -> None:
        check = self._pseudonyms.key_check()
        with self._transactions.writing() as session:
            identity = session.get(StoreIdentityRow, 1)
            if identity is None:
                identity = StoreIdentityRow(id=1, key_check=check, created_at=datetime.now(UTC))
                session.add(identity)
            if identity.key_check != check:
                raise ConfigurationError(
                    "The pseudonym key is not the one that this case store was filled with.",
                    meaning="Known patients would be taken for new ones, and split anew.",
                    action="Restore keys/pseudonyms from backup.",
                    code="pseudonym-key",
                )


def _keys(case: NewCase) -> set[tuple[str, str]]:
    return {(case.task, case.image.digest), (case.task, case.image.pixels_digest)}
