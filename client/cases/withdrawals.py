"""How cases go: marked withdrawn in one transaction, then their images are deleted.

A crash between the two leaves images that only withdrawn cases speak of: they are deleted when the
store is opened again.
"""

from __future__ import annotations

import logging

from client.cases.case import Case
from client.cases.image_store import ImageStore
from client.cases.pseudonyms import Pseudonyms
from client.cases.status import remove_withdrawn_images, withdraw, withdraw_case
from client.cases.transactions import Transactions

logger = logging.getLogger(__name__)


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

    def patient(self, patient_id: str) -> int:
        """Withdraw a patient's cases, and return how many; `NotFound` if they are unknown here."""
        key = self._pseudonyms.patient(patient_id)
        with self._transactions.writing() as session:
            count = withdraw(session, key)
        self.remove_images()
        logger.info("patient-withdrawn cases=%d", count)
        return count

    def case(self, case_id: str) -> Case:
        """Withdraw one case; `NotFound` if there is none with this id."""
        with self._transactions.writing() as session:
            case = withdraw_case(session, case_id)
        self.remove_images()
        logger.info("case-withdrawn case=%s", case_id)
        return case

    def remove_images(self) -> None:
        """Delete images that only withdrawn cases speak of."""
        with self._transactions.writing() as session:
            remove_withdrawn_images(session, self._images)
