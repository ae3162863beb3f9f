"""What is stored, as it is asked for: one case, a side's cases, counts and histories."""

from __future__ import annotations

from collections.abc import Iterable

from client.cases import queries
from client.cases.case import Case, CaseCounts, PatientHistory, as_case
from client.cases.image_store import ImageStore
from client.cases.pseudonyms import Pseudonyms
from client.cases.splits import Split
from client.cases.status import case_history
from client.cases.transactions import Transactions


class StoredCases:
    """Answers questions about the cases, and changes nothing.

    Parameters
    ----------
    transactions : Transactions
    images : ImageStore
    pseudonyms : Pseudonyms
    """

    def __init__(
        self, transactions: Transactions, images: ImageStore, pseudonyms: Pseudonyms
    ) -> None:
        self._transactions = transactions
        self._images = images
        self._pseudonyms = pseudonyms

    def get(self, case_id: str) -> Case:
        """Return a case; `NotFound` if there is none with this id."""
        with self._transactions.reading() as session:
            return as_case(*queries.row(session, case_id))

    def gone(self, case_ids: Iterable[str]) -> set[str]:
        """Return which of these cases were withdrawn, or never were."""
        with self._transactions.reading() as session:
            return queries.gone(session, case_ids)

    def image_bytes(self, case: Case) -> bytes:
        """Return a case's stored file bytes; `StoreError` if they are missing or damaged."""
        return self._images.get(case.digest)

    def confirmed(self, task: str, split: Split) -> list[Case]:
        """Return a side's confirmed cases, in the order of their digests."""
        with self._transactions.reading() as session:
            return queries.confirmed(session, task, split)

    def waiting(self, task: str, limit: int) -> list[Case]:
        """Return the cases that wait for a label, oldest first."""
        with self._transactions.reading() as session:
            return queries.waiting(session, task, limit)

    def counts(self, task: str) -> CaseCounts:
        """Count a task's cases and its patients with a confirmed case."""
        with self._transactions.reading() as session:
            return queries.counts(session, task)

    def likenesses(self, task: str, split: Split) -> list[str]:
        """Return the perceptual hashes of a side's confirmed cases."""
        with self._transactions.reading() as session:
            return queries.likenesses(session, task, split)

    def patient_history(self, patient_id: str) -> PatientHistory:
        """Return a patient's side and dates; `NotFound` if they are unknown here."""
        with self._transactions.reading() as session:
            return queries.history(session, self._pseudonyms.patient(patient_id))

    def case_history(self, case_id: str) -> PatientHistory:
        """Return the same for one case alone; `NotFound` if there is none with this id."""
        with self._transactions.reading() as session:
            return case_history(session, case_id)
