"""The sites' control variates (SCAFFOLD), durable, and the corrections that follow from them.

A variate is a file of the site's and the round's that it was learnt in. Each checkpoint names
those that belong to it, and files go when no kept checkpoint names them. So a round that is
repeated after any interruption sends the same corrections, bit for bit: sites recognise the
request, and send again what they trained. A variate says about a site what its update did, so
files are readable by the coordinator's user alone, and go with the campaign.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from safetensors.numpy import save

from common.compression import Packed, decode, encode
from common.correction import Correction, norm_bound, norm_of
from common.errors import StoreError
from common.folders import write_private
from common.update import Tensors, tensors_digest
from server.model_store import read_tensors
from server.registry.records import Campaign
from server.rounds.aggregation import MAJORITY_FROM, capped_shares, norm_factors
from server.rounds.aggregation_spool import UpdateSpool
from server.strategy.scaffold import Variate, mean_variate, site_variate, wanted_correction

logger = logging.getLogger(__name__)

FORGET_AFTER = 10
"""Rounds without a site's update, after which its variate no longer pulls the others."""

_STATE = "scaffold-variates"
_FOLDER = "control-variates"
_SHORTER = (1.0, 0.5, 0.1)
"""Rounding to int8 can lengthen a correction; then a shorter one is sent."""


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    round: int
    patients: float


_INDEX = TypeAdapter(dict[str, _Entry])


@dataclass(frozen=True)
class SentCorrection:
    """A correction as it travels, as its site decodes it, and the digest that the plan names."""

    packed: Packed
    decoded: Correction
    digest: str

    @property
    def norm(self) -> float:
        """Euclidean, over all tensors."""
        return norm_of(self.decoded)


class ControlVariates:
    """The control variates of one campaign.

    Parameters
    ----------
    folder : Path
        The campaign's.
    campaign : Campaign
        Its training, aggregation and compression are used.
    """

    def __init__(self, folder: Path, campaign: Campaign) -> None:
        self._folder = folder / _FOLDER
        self._training = campaign.training
        self._aggregation = campaign.aggregation
        self._kind = campaign.recipe.federation.compression
        self._index: dict[str, _Entry] = {}
        self._saved: dict[str, _Entry] = {}
        self._mean: Variate | None = None

    def forget(self) -> None:
        """Start anew, since other tensors are trained from now on."""
        self._index, self._mean = {}, None

    def correction(self, site: str, base: Tensors, *, number: int) -> SentCorrection | None:
        """Return what a site is to add to its gradients in round ``number``.

        The same for the same checkpoint. None for a site of which nothing is known yet: its
        variate is taken to be the mean one.

        Raises
        ------
        StoreError
            If a variate cannot be read.
        """
        if site not in self._index or len(self._index) < 2:
            return None
        if self._mean is None:
            self._mean = self._mean_of_all()
        own = self._read(site)
        bound = norm_bound(base, self._training)
        wanted = wanted_correction(self._mean, own, bound=bound)
        shapes = {name: array.shape for name, array in wanted.items()}
        seed = hashlib.sha256(f"{number}\0{site}".encode()).digest()
        for share in _SHORTER:
            shorter = {name: np.float32(share) * array for name, array in wanted.items()}
            packed = encode(shorter, self._kind, seed=seed)
            decoded = decode(packed, shapes)
            if norm_of(decoded) <= bound:
                return SentCorrection(packed, decoded, tensors_digest(decoded))
        return None

    def learn(self, spool: UpdateSpool, base: Tensors, *, number: int) -> None:
        """Take in a round's accepted updates, which answered `correction` of the same round.

        Parameters
        ----------
        spool : UpdateSpool
            The round's.
        base : mapping of str to ndarray
            The model that the sites were given.
        number : int
            The round.

        Raises
        ------
        StoreError
            If the disk failed.
        """
        factors = norm_factors([u.norm for u in spool.updates], self._aggregation.norm_multiple)
        learnt: dict[str, _Entry] = {}
        for row, (update, factor) in enumerate(zip(spool.updates, factors, strict=True)):
            sent = self.correction(update.site, base, number=number)
            correction = sent.decoded if sent is not None else None
            delta = spool.tensors(spool.row(row))
            entry = _Entry(round=number, patients=update.weight)
            variate = site_variate(delta, correction, self._training, factor=float(factor))
            self._write(update.site, entry, variate)
            learnt[update.site] = entry
        # Only now: every correction above is that of the round before.
        fresh = {s: e for s, e in self._index.items() if number - e.round <= FORGET_AFTER}
        self._index, self._mean = fresh | learnt, None

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return what a checkpoint must hold: which files belong to it."""
        return {_STATE: np.frombuffer(_INDEX.dump_json(self._index), dtype=np.uint8)}

    def restore(self, state: Tensors) -> None:
        """Go on from `state`; where a file is gone, learn all anew.

        Raises
        ------
        StoreError
            With code ``checkpoint-damaged``.
        """
        self._index, self._mean = {}, None
        try:
            index = _INDEX.validate_json(state[_STATE].tobytes()) if _STATE in state else {}
        except ValidationError as error:
            raise StoreError(
                "A campaign's checkpoint cannot be read.",
                action="Start a new campaign.",
                code="checkpoint-damaged",
            ) from error
        if all(self._path(site, entry).is_file() for site, entry in index.items()):
            self._index = self._saved = index
        else:
            logger.warning("control-variates-lost folder=%s", self._folder.parent.name)

    def prune(self) -> None:
        """Remove the files that neither the newest checkpoint nor the one before it names."""
        named = {self._path(s, e) for index in (self._saved, self._index) for s, e in index.items()}
        for path in self._folder.glob("*.safetensors"):
            if path not in named:
                path.unlink(missing_ok=True)
        self._saved = dict(self._index)

    def _mean_of_all(self) -> Variate:
        sites = sorted(self._index)
        # As the aggregation has it, so that corrections cancel where all take part.
        largest = self._aggregation.largest_share if len(sites) >= MAJORITY_FROM else 1.0
        shares = capped_shares([self._index[site].patients for site in sites], largest)
        return mean_variate((float(w), self._read(s)) for w, s in zip(shares, sites, strict=True))

    def _path(self, site: str, entry: _Entry) -> Path:
        return self._folder / f"{site}-{entry.round:06d}.safetensors"

    def _read(self, site: str) -> Variate:
        found = read_tensors(self._path(site, self._index[site]))
        return {name: array.astype(np.float32, copy=False) for name, array in found.items()}

    def _write(self, site: str, entry: _Entry, variate: Variate) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            ordered = {name: np.array(array, order="C") for name, array in variate.items()}
            write_private(self._path(site, entry), save(ordered))
        except OSError as error:
            raise StoreError(
                f"A site's control variate cannot be kept ({error.strerror or error}).",
                action="Free disk space at the coordinator, then resume the campaign.",
                code="updates-disk",
            ) from error


def holds_variates(folder: Path) -> bool:
    """Tell whether a campaign's folder has control variates."""
    return (folder / _FOLDER).is_dir()


def remove_variates(folder: Path) -> None:
    """Remove a campaign's control variates; harmless where there are none."""
    shutil.rmtree(folder / _FOLDER, ignore_errors=True)
