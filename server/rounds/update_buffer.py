"""The updates of one buffered step: checked, kept durably, and spooled when it is full.

They lie on disk alone until then, so that a step's memory does not grow with its updates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import UpdateRefused
from common.records import Receipt, SiteReply
from common.wire import Content
from server.evaluation import BySite
from server.rounds.aggregation_spool import UpdateSpool
from server.rounds.kept_answers import AnswerHeader, KeptAnswers
from server.rounds.staleness import staleness_weight
from server.rounds.update_checks import Expected, NormHistory, check_update

Floats = dict[str, NDArray[np.float32]]
Staleness = Callable[[str], int]
"""How many steps old a base model of this digest is."""


class UpdateBuffer:
    """The accepted updates that the next step is made of.

    Parameters
    ----------
    folder : Path
        The campaign's; what was kept there before an interruption is in the buffer already, and
        what is too old for it is gone.
    step : int
        The step's number, which is the round's in the registry.
    norms : NormHistory
        What is typical.
    staleness : callable
        Of a base model; more than ``limit`` is too old.
    limit : int
        Steps.
    """

    def __init__(
        self, folder: Path, step: int, *, norms: NormHistory, staleness: Staleness, limit: int
    ) -> None:
        self.step = step
        self._answers = KeptAnswers(folder, step)
        self._norms = norms
        self._staleness = staleness
        self._limit = limit
        self._headers: list[AnswerHeader] = []
        for answer in self._answers.read(lambda base: staleness(base) <= limit):
            norms.add(answer.header.norm)
            self._headers.append(answer.header)

    @property
    def headers(self) -> tuple[AnswerHeader, ...]:
        """What came with each update."""
        return tuple(self._headers)

    @property
    def sites(self) -> list[str]:
        """Whose updates they are; a site is named once an update."""
        return [header.site for header in self._headers]

    def scores(self, digest: str) -> BySite:
        """Return what sites that answered with an update made of the model of this digest."""
        return {
            h.site: h.evaluation
            for h in self._headers
            if h.evaluation is not None and h.receipt.base_digest == digest
        }

    def take(self, reply: SiteReply, receipt: Receipt, expected: Expected, came: Content) -> float:
        """Check an update and keep it; return its norm.

        Raises
        ------
        UpdateRefused
            As `check_update` does; with code ``update-stale``, if its base is too old.
        StoreError
            If the disk failed.
        """
        if self._staleness(receipt.base_digest) > self._limit:
            raise UpdateRefused(
                "An update was trained on a model that is too old.",
                code="update-stale",
            )
        norm = check_update(reply.update, receipt, expected, self._norms)
        if reply.update is None:  # check_update refuses that; this is for the type checker
            raise UpdateRefused("A reply has no update.", code="update-missing")
        header = AnswerHeader(
            site=expected.site,
            norm=norm,
            receipt=receipt,
            evaluation=reply.evaluation,
            digest=reply.update.digest,
            bytes=came.bytes,
            sha256=came.sha256,
        )
        self._answers.keep(header, reply.update.tensors, several=True)
        self._headers.append(header)
        return norm

    def spool_into(self, spool: UpdateSpool) -> None:
        """Write one row a site: the mean of its updates, each shortened by its staleness.

        So a quick site has one vote in a step, however often it answered, and robust aggregation
        and the largest share count sites.
        """
        for site in sorted(set(self.sites)):
            count = self.sites.count(site)
            total: Floats = {}
            weight = 0
            for answer in self._answers.read(site=site):
                receipt = answer.header.receipt
                share = np.float32(staleness_weight(self._staleness(receipt.base_digest)) / count)
                for name, array in answer.delta.items():
                    part = array * share
                    total[name] = part if name not in total else total[name] + part
                weight = receipt.public_patients  # what it declared last
            squares = (float(np.square(array, dtype=float).sum()) for array in total.values())
            norm = math.sqrt(sum(squares))
            spool.add(site, total, weight=weight, norm=norm)
