"""The case store: image bytes on disk, one row a case in SQL, and nothing that names a patient.

This is its face: `keeping` takes cases in, `withdrawals` takes them out, `stored` answers what is
asked. All writers of one database go one at a time (SQLite: BEGIN IMMEDIATE; PostgreSQL: an
advisory lock), so what is checked inside a transaction stays true until it commits.

Patient ids, accession numbers and file names are never stored; of ages, the ten-year band.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from client.cases.accepted_image import accept_image
from client.cases.case import Case, CaseCounts, ClassCount, DuplicateCase, NewCase, PatientHistory
from client.cases.image_store import ImageStore
from client.cases.keeping import CaseKeeper
from client.cases.key_check import check_pseudonym_key
from client.cases.leftovers import clear_leftovers, clear_what_can_be
from client.cases.pseudonyms import Pseudonyms
from client.cases.splits import Split
from client.cases.status import check_label, confirm
from client.cases.stored import StoredCases
from client.cases.tables import CaseRow
from client.cases.transactions import CASES_LOCK, Transactions
from client.cases.withdrawals import Withdrawals
from client.review.flagging import Flagging
from client.review.near_duplicates import NearDuplicate, NearDuplicates
from client.review.opinions import GivenOpinion, SeenAnswer
from client.review.settings import ReviewSettings
from client.settings import SiteSettings
from common.database import migrate, open_database
from common.errors import CaseRefused
from common.imaging import DEFAULT_LIMITS, ImageLimits

__all__ = ["Case", "CaseCounts", "CaseStore", "ClassCount", "DuplicateCase", "NewCase"]

MIGRATIONS = Path(__file__).parent.parent / "migrations"
_ONE_READER = ReviewSettings()

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
    review : ReviewSettings, optional
        How a case becomes confirmed; by default one reader's word is enough.

    Attributes
    ----------
    transactions : Transactions
        In which all that changes cases is written.
    withdrawals : Withdrawals
        What `client.withdrawal` takes cases out with, step by step.
    rules : ReviewSettings

    Raises
    ------
    ConfigurationError
        If the database was filled with another pseudonym key.
    """

    def __init__(
        self,
        engine: Engine,
        images: ImageStore,
        pseudonyms: Pseudonyms,
        holdout_fraction: float,
        *,
        review: ReviewSettings = _ONE_READER,
    ) -> None:
        self._engine = engine
        self.transactions = Transactions(engine, CASES_LOCK)
        self.rules = review
        self._near = NearDuplicates(review.near_duplicate_bits)
        self._stored = StoredCases(self.transactions, images, pseudonyms)
        self.withdrawals = Withdrawals(self.transactions, images, pseudonyms)
        self._keeper = CaseKeeper(
            *(self.transactions, images, pseudonyms, holdout_fraction),
            rules=review,
            flagging=Flagging(self._near),
        )
        check_pseudonym_key(self.transactions, pseudonyms)

    @classmethod
    def open(cls, settings: SiteSettings) -> CaseStore:
        """Open a site's store: migrate its database, clear what dead writers left, if it can be.

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
        store = cls(engine, images, pseudonyms, settings.holdout_fraction, review=settings.review)
        clear_what_can_be(
            images.clear_temporary,
            store.withdrawals.remove_images,
            partial(clear_leftovers, store.transactions, images),
        )
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
        reader: str | None = None,
        saw: SeenAnswer | None = None,
        flags: Sequence[str] = (),
        look_for_writing: bool = False,
        limits: ImageLimits = DEFAULT_LIMITS,
    ) -> Case:
        """Store a case; with a label it is confirmed, without it waits.

        With a ``reader`` the label is that person's opinion, and the case is confirmed where the
        site's rules are content with it.

        Parameters
        ----------
        image : bytes
            PNG, JPEG or what else `common.imaging` accepts.
        task, patient_id, label, source, age, sex, split, reader, saw, flags
            As `NewCase` has them.
        look_for_writing : bool
            Flag a picture that seems to hold writing.
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
        accepted = accept_image(image, limits=limits, look_for_writing=look_for_writing)
        return self.add_new(
            NewCase(
                *(accepted, task, patient_id, label, source, age, sex, split),
                reader=reader,
                saw=saw,
                flags=tuple(flags),
            )
        )

    def add_new(self, new: NewCase) -> Case:
        """Store a case of which all is known. Raises as `add`."""
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
        return self._keeper.keep(cases)

    def confirm(
        self,
        case_id: str,
        label: str,
        *,
        classes: Sequence[str],
        reader: str = "local",
        saw: SeenAnswer | None = None,
        warnings: Collection[str] = (),
    ) -> Case:
        """Give a waiting case its label, as the opinion of a reader. Said again, nothing changes.

        Where two readers must agree the case may still wait afterwards.

        Parameters
        ----------
        case_id : str
        label : str
            One of ``classes``.
        classes : sequence of str
            The recipe's.
        reader : str
            The account whose opinion it is.
        saw : SeenAnswer, optional
            The model's answer that the reader had before them.
        warnings : collection of str
            Codes with which the newest answer on these pixels came; they may block.

        Raises
        ------
        NotFound
            If there is no such case.
        CaseRefused
            ``label-unknown``, ``case-withdrawn``, or ``case-already-confirmed`` with another label.
        """
        check_label(label, classes)
        given = GivenOpinion(reader, "correct", label, "confirm", saw)
        with self.transactions.writing() as session:
            case = confirm(session, case_id, given, self.rules, warnings=warnings)
        logger.info("case-judged case=%s status=%s", case_id, case.status)
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
        done = self.withdrawals.patient(patient_id)
        self.withdrawals.remove_images()
        return done.cases

    def withdraw_case(self, case_id: str) -> Case:
        """Take one case out and delete its image: a wrong label, a wrong upload. `NotFound`."""
        self.withdrawals.case(case_id)
        self.withdrawals.remove_images()
        return self.get(case_id)

    def get(self, case_id: str) -> Case:
        """Return a case; `NotFound` if there is none with this id."""
        return self._stored.get(case_id)

    def gone(self, case_ids: Iterable[str]) -> set[str]:
        """Return which of these cases were withdrawn, or never were."""
        return self._stored.gone(case_ids)

    def image_bytes(self, case: Case) -> bytes:
        """Return a case's stored file bytes; `StoreError` if they are missing or damaged."""
        return self._stored.image_bytes(case)

    def training_cases(self, task: str) -> list[Case]:
        """Return the confirmed cases of training patients, in the order of their digests."""
        return self._stored.confirmed(task, "train")

    def holdout_cases(self, task: str) -> list[Case]:
        """Return the confirmed cases of holdout patients, in the order of their digests."""
        return self._stored.confirmed(task, "holdout")

    def waiting_cases(self, task: str, *, limit: int = 100) -> list[Case]:
        """Return the cases that wait for a label, oldest first."""
        return self._stored.waiting(task, limit)

    def counts(self, task: str) -> CaseCounts:
        """Count a task's cases and its patients with a confirmed case."""
        return self._stored.counts(task)

    def look_alikes(self, session: Session, case: CaseRow) -> list[NearDuplicate]:
        """Return the live cases that look all but the same, nearest first."""
        return self._near.find(session, case.task, case.likeness, of=case.id)

    def likenesses(self, task: str, split: Split) -> list[str]:
        """Return the perceptual hashes of a side's confirmed cases."""
        return self._stored.likenesses(task, split)

    def patient_history(self, patient_id: str) -> PatientHistory:
        """Return a patient's side and since when each task has a confirmed case of theirs.

        Raises
        ------
        NotFound
            If the patient is unknown here.
        """
        return self._stored.patient_history(patient_id)

    def case_history(self, case_id: str) -> PatientHistory:
        """Return the same for one case alone; `NotFound` if there is none with this id."""
        return self._stored.case_history(case_id)
