"""Taking in a round's updates: checked, kept durably, and spooled for the aggregation."""

from __future__ import annotations

from pathlib import Path

from common.errors import UpdateRefused
from common.records import Receipt, SiteReply
from common.wire import Content
from server.rounds.aggregation_spool import UpdateSpool
from server.rounds.kept_answers import AnswerHeader, KeptAnswers
from server.rounds.update_checks import Expected, NormHistory, check_update


class UpdateIntake:
    """The updates of one round, on their way into its spool.

    Parameters
    ----------
    folder : Path
        The campaign's; answers are kept there.
    number : int
        The round's.
    spool : UpdateSpool
        Gets what is accepted.
    norms : NormHistory
        What is typical.
    """

    def __init__(self, folder: Path, number: int, *, spool: UpdateSpool, norms: NormHistory):
        self._answers = KeptAnswers(folder, number)
        self._spool = spool
        self._norms = norms

    def kept(self, base_digest: str) -> tuple[AnswerHeader, ...]:
        """Take in what was kept before the round was interrupted; return whose it is."""
        found: list[AnswerHeader] = []
        for answer in self._answers.read(lambda base: base == base_digest):
            told = answer.header
            weight = told.receipt.public_patients
            self._spool.add(told.site, answer.delta, weight=weight, norm=told.norm)
            self._norms.add(told.norm)
            found.append(told)
        return tuple(found)

    def take(self, reply: SiteReply, receipt: Receipt, expected: Expected, came: Content) -> float:
        """Check an update, keep it and spool it; return its norm.

        Raises
        ------
        UpdateRefused
            As `check_update` does.
        StoreError
            If the disk failed.
        """
        norm = check_update(reply.update, receipt, expected, self._norms)
        if reply.update is None:  # check_update refuses that; this is for the type checker
            raise UpdateRefused("A reply has no update.", code="update-missing")
        tensors = reply.update.tensors
        told = AnswerHeader(
            site=expected.site,
            norm=norm,
            receipt=receipt,
            evaluation=reply.evaluation,
            digest=reply.update.digest,
            bytes=came.bytes,
            sha256=came.sha256,
        )
        self._answers.keep(told, tensors)
        self._spool.add(expected.site, tensors, weight=receipt.public_patients, norm=norm)
        return norm
