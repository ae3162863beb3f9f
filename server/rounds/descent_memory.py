"""Does a site answer to the model's movement as descent does? What its earlier updates say.

An honest site sends a step down its own loss. How its hospital differs from the others says
nothing about that, so that distances between sites accuse the wrong ones. But where a loss is
convex its gradient is monotone, ``(g(w') - g(w)) . (w' - w) >= 0`` (Nesterov 2004, Introductory
Lectures on Convex Optimization, theorem 2.1.3): the updates of a site that descends satisfy
``(d_t - d_n) . (w_t - w_m) <= 0``, and those of one that climbs have the opposite sign, whatever
its data. Each site is compared with nobody but itself, so one with most of the patients is seen
too. The model ``w_m`` is the one at the site's answer after ``d_n``: the noise in ``d_n`` moved
the model from ``w_n`` to there and must not count against (or for) it. Noise of later rounds has
the mean zero, so the sum over all pairs tells more with every round, under privacy as well.

A network is not convex; that the sums keep their signs there is measured, not proved
(docs/robust-aggregation.md).
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from common.errors import StoreError
from common.update import Tensors
from server.rounds.aggregation import grossly_long, norm_factors
from server.rounds.aggregation_spool import UpdateSpool

_ROWS = 3
"""Of a site: the sum of its updates, the sum of the models after them, its last update."""


@dataclass
class _Evidence:
    """Of one site: its rows' place, pairs so far, and the sums' scalar parts."""

    slot: int
    pairs: int = 0
    products: float = 0.0
    climbing: float = 0.0
    scale: float = 0.0

    @property
    def score(self) -> float:
        """Above 0: climbs. NaN: nothing is known yet."""
        return self.climbing / self.scale if self.scale > 0 else float("nan")


class DescentMemory:
    """What a campaign's updates say about each site's direction.

    Three rows a site, of the model's trainable size, lie in one file that has no name: a killed
    process leaves no site's updates behind, and a campaign that is resumed learns anew.

    Parameters
    ----------
    folder : Path
        On whose file system the rows are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._sites: dict[str, _Evidence] = {}
        self._origin: NDArray[np.float32] | None = None

    def forget(self) -> None:
        """Start anew, since other tensors are trained from now on; give the disk space back."""
        if self._file is not None:
            self._file.close()
        self._file, self._sites, self._origin = None, {}, None

    def judge(
        self, spool: UpdateSpool, weights: Tensors, *, norm_multiple: float
    ) -> NDArray[np.float64]:
        """Take in a round's updates, and return what is known of each site with them.

        Parameters
        ----------
        spool : UpdateSpool
            The round's accepted updates.
        weights : mapping of str to ndarray
            The model that the sites were given; holds the spool's tensors.
        norm_multiple : float
            Of the norm bound. Updates are taken as they are, since a bound would bend what
            monotone means; but grossly long ones are passed over, so that none outweighs all
            others of its site.

        Returns
        -------
        ndarray, float64, shape (updates,)
            In the order of ``spool.updates``; above 0 for a site that climbs, NaN where nothing
            is known yet. A site is known from its third update on.

        Raises
        ------
        StoreError
            If the disk failed.
        """
        here = spool.flat(weights)
        if self._origin is None:
            self._origin = here
        sites = [self._evidence(u.site) for u in spool.updates]
        passed = grossly_long(norm_factors([u.norm for u in spool.updates], norm_multiple))
        rows = self._open(spool.size)
        totals = np.zeros((len(sites), 4))
        for where, block in spool.blocks():
            now = (here[where] - self._origin[where]).astype(np.float64)
            for index, site in enumerate(sites):
                if passed[index]:
                    continue
                own = rows[_ROWS * site.slot : _ROWS * (site.slot + 1), where]
                totals[index] += _take(own, block[index], now, site.pairs)
        for index, site in enumerate(sites):
            if passed[index]:
                continue
            climbing, product, update, moved = totals[index]
            site.products += product
            site.climbing += climbing + site.products
            site.scale += float(np.sqrt(update * moved))
            site.pairs += 1
        return np.array([site.score for site in sites])

    def _evidence(self, site: str) -> _Evidence:
        return self._sites.setdefault(site, _Evidence(len(self._sites)))

    def _open(self, size: int) -> NDArray[np.float32]:
        """Return all rows; the disk's blocks are reserved first, since a map cannot say no."""
        shape = (_ROWS * len(self._sites), size)
        try:
            if self._file is None:
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
            os.posix_fallocate(self._file.fileno(), 0, max(1, 4 * shape[0] * shape[1]))
        except OSError as error:
            raise StoreError(
                f"What is known of the sites' updates cannot be kept on disk: {error}.",
                action="Free disk space at the coordinator, then resume the campaign.",
                code="updates-disk",
            ) from error
        return np.memmap(self._file, dtype=np.float32, mode="r+", shape=shape)


def _take(
    own: NDArray[np.float32], update: NDArray[np.float64], now: NDArray[np.float64], pairs: int
) -> tuple[float, float, float, float]:
    """Add the pair of the site's last update and the model now, then see what the new one says.

    With ``pairs`` sums over earlier answers, ``sum_n (d_t - d_n) . (w_t - w_m)`` is
    ``d_t . (pairs w_t - sum w_m) - sum d_n . w_t + sum d_n . w_m``; the last term is kept as a
    scalar, and its increase is the second value.
    """
    summed, moved, last = own
    product = float(last.astype(np.float64) @ now) if pairs else 0.0
    if pairs:
        summed += last
        moved += now.astype(np.float32)
    way = pairs * now - moved
    climbing = float(update @ way) - float(summed.astype(np.float64) @ now)
    last[:] = update
    return climbing, product, float(update @ update), float(way @ way)
