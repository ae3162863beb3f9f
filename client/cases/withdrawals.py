"""How cases go: marked withdrawn in one transaction, then their images are deleted.

A crash between the two leaves images that only withdrawn cases speak of: they are deleted when the
store is opened again. What else follows is written down in that transaction (`unfinished`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from client.cases import queries
from client.cases.case import PatientHistory
from client.cases.image_store import ImageStore
from client.cases.pseudonyms import Pseudonyms
from client.cases.status import case_history, remove_withdrawn_images, withdraw, withdraw_case
from client.cases.transactions import Transactions
from client.cases.unfinished import leave_unfinished

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Withdrawn:
    """What was known before, and how many cases were taken out: 0 if it was done before."""

    history: PatientHistory
    cases: int


class Withdrawals:
    """Takes patients, and single cases, out of all future training and evaluation.

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

    def patient(self, patient_id: str, *, by: str | None = None) -> Withdrawn:
        """Mark a patient's cases; `remove_images` follows. `NotFound` if they are unknown here."""
        key = self._pseudonyms.patient(patient_id)
        with self._transactions.writing() as session:
            history = queries.history(session, key)
            gone = withdraw(session, key)
            if gone or history.withdrawn is None:
                leave_unfinished(session, gone, by)
        logger.info("patient-withdrawn cases=%d", len(gone))
        return Withdrawn(history, len(gone))

    def case(self, case_id: str, *, by: str | None = None) -> Withdrawn:
        """Mark one case; `remove_images` follows. `NotFound` if there is none with this id."""
        with self._transactions.writing() as session:
            history = case_history(session, case_id)
            gone = withdraw_case(session, case_id)
            if gone:
                leave_unfinished(session, gone, by)
        logger.info("case-withdrawn case=%s", case_id)
        return Withdrawn(history, len(gone))

    def remove_images(self) -> None:
        """Delete images that only withdrawn cases speak of."""
        with self._transactions.writing() as session:
            remove_withdrawn_images(session, self._images)
