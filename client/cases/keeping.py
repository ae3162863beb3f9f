"""How cases come in: their bytes durably first, then their rows in one transaction.

There is never a row without bytes. Bytes of a case that is refused are removed in the same
transaction; those that a crash between the two leaves, when the store is opened (`leftovers`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from client.cases.admission import Admission, Admitted, find_stored
from client.cases.case import Case, NewCase
from client.cases.image_store import ImageStore
from client.cases.leftovers import remove_unless_live
from client.cases.pseudonyms import Pseudonyms
from client.cases.transactions import Transactions
from client.review.flagging import Flagging
from client.review.settings import ReviewSettings
from common.errors import CaseRefused

logger = logging.getLogger(__name__)


class CaseKeeper:
    """Takes cases in, or says of each why not.

    Parameters
    ----------
    transactions : Transactions
    images : ImageStore
    pseudonyms : Pseudonyms
    holdout_fraction : float
        Share of new patients held out, 0 to 0.9.
    rules : ReviewSettings
        By which a reader's label counts.
    flagging : Flagging
        Looks at every new case.
    """

    def __init__(
        self,
        transactions: Transactions,
        images: ImageStore,
        pseudonyms: Pseudonyms,
        holdout_fraction: float,
        *,
        rules: ReviewSettings,
        flagging: Flagging,
    ) -> None:
        self._transactions = transactions
        self._images = images
        self._pseudonyms = pseudonyms
        self._holdout_fraction = holdout_fraction
        self._rules, self._flagging = rules, flagging

    def keep(self, cases: Sequence[NewCase]) -> list[Case | CaseRefused]:
        """Store many cases in one transaction; see `client.cases.store.CaseStore.add_many`."""
        with self._transactions.reading() as session:
            stored = find_stored(session, cases)
            # Withdrawn images included, which would be deleted again at once.
            fresh = [c for c in cases if not _keys(c) & stored.keys()]
            compared = self._flagging.compare(session, fresh)
        written = set(self._images.put_many(c.image.data for c in fresh))
        with self._transactions.writing() as session:
            admission = Admission(
                *(session, self._pseudonyms, self._holdout_fraction, cases),
                rules=self._rules,
                flagging=self._flagging,
                compared=compared,
            )
            admitted = [admission.admit(case) for case in cases]
            self._keep_bytes(cases, admitted)
            admission.finish()
            kept_digests = {one.row.digest for one in admitted if isinstance(one, Admitted)}
            remove_unless_live(session, self._images, written - kept_digests)
            results = [one.case() if isinstance(one, Admitted) else one for one in admitted]
        kept = sum(isinstance(result, Case) for result in results)
        logger.info("cases-added kept=%d refused=%d", kept, len(results) - kept)
        return results

    def _keep_bytes(
        self, cases: Sequence[NewCase], admitted: Sequence[Admitted | CaseRefused]
    ) -> None:
        """Write again what a withdrawal deleted between our writing and our transaction."""
        for new, one in zip(cases, admitted, strict=True):
            fresh = isinstance(one, Admitted) and not one.duplicate
            mine = isinstance(one, Admitted) and one.row.digest == new.image.digest
            if fresh and mine and not self._images.holds(new.image.digest):
                self._images.put(new.image.data)


def _keys(case: NewCase) -> set[tuple[str, str]]:
    return {(case.task, case.image.digest), (case.task, case.image.pixels_digest)}
