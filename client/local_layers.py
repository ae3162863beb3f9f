"""A site's own layers: trained here, kept here, put into each round's model before it is used.

FedBN (Li et al. 2021, arXiv:2102.07623) and FedPer (Arivazhagan et al. 2019, arXiv:1912.00818);
`common.local_layers` says which parameters they are. One file a campaign, readable by the site's
user alone. It is written when a round was trained and before its reply leaves, so where a reply is
lost, the layers are a round ahead of the model, which the next round mends.

Under differential privacy they are trained by the same noised steps as all else, so what a later
update owes to them is covered by the ledger's lines. Layers that were trained without noise are
never put into a round with privacy: they would carry patients past the noise. They go with a
patient's withdrawal, and with the third campaign after theirs.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from client.settings import SiteSettings
from client.withdrawn_mark import mark, read_mark
from common.errors import StoreError
from common.folders import write_private
from common.plan import Hex64, Identifier, RoundPlan
from common.update import Tensors, tensors_digest

logger = logging.getLogger(__name__)

KEPT = 3
"""Campaigns whose layers are kept: a release may come while the next campaign runs."""

_KEY = "local-layers"
_TICK = 2_000_000_000
"""Nanoseconds: the coarsest file systems keep every second second."""
Floats = dict[str, NDArray[np.float32]]


class _Header(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    campaign: Identifier
    architecture: str
    round: int
    private: bool
    digest: Hex64


@dataclass(frozen=True)
class KeptLayers:
    """A campaign's layers after the site's round ``round``; ``private`` if they were noised.

    ``withdrawn`` is what `client.withdrawn_mark` says of them.
    """

    campaign: str
    architecture: str
    round: int
    private: bool
    tensors: Floats
    withdrawn: int


class LocalLayerStore:
    """The layers of the newest campaigns.

    Parameters
    ----------
    settings : SiteSettings
        The site.
    """

    def __init__(self, settings: SiteSettings) -> None:
        self._folder: Path = settings.data / "local-layers"

    def keep(
        self, plan: RoundPlan, tensors: Mapping[str, NDArray[np.float32]], *, withdrawn: int = 0
    ) -> None:
        """Write what a round made of the layers, in place of the round before.

        ``withdrawn`` is what `client.withdrawn_mark` says of them.

        Raises
        ------
        StoreError
            If the disk failed: the update must not leave then, since the model would move on
            with layers that this site does not have.
        """
        layers = {name: np.array(array, order="C") for name, array in tensors.items()}
        header = _Header(
            campaign=plan.campaign,
            architecture=plan.recipe.model.architecture,
            round=plan.round,
            private=plan.privacy.epsilon is not None,
            digest=tensors_digest(layers),
        )
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            told = {_KEY: header.model_dump_json(), **mark(withdrawn)}
            data = save(layers, metadata=told)
            write_private(self._path(plan.campaign), data)
            self._prune(self._path(plan.campaign))
        except OSError as error:
            raise StoreError(
                f"The site's own layers cannot be kept ({error.strerror or error}).",
                action="Free disk space.",
            ) from error

    def find(self, campaign: str) -> KeptLayers | None:
        """Return a campaign's layers; damaged ones count as none."""
        try:
            with safe_open(os.fspath(self._path(campaign)), framework="numpy") as file:
                told = file.metadata() or {}
                header = _Header.model_validate_json(told.get(_KEY, ""))
                tensors = {n: np.asarray(file.get_tensor(n)) for n in file.keys()}  # noqa: SIM118
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, ValidationError):
            logger.warning("local-layers-damaged campaign=%s", campaign)
            return None
        if header.campaign != campaign or tensors_digest(tensors) != header.digest:
            logger.warning("local-layers-damaged campaign=%s", campaign)
            return None
        return KeptLayers(
            *(campaign, header.architecture, header.round, header.private),
            tensors=tensors,
            withdrawn=read_mark(told),
        )

    def before(
        self, plan: RoundPlan, base: Tensors, staying: frozenset[str], withdrawn: int
    ) -> Floats:
        """Return what a round begins with in place of the base's layers; empty in a first round.

        Parameters
        ----------
        plan : RoundPlan
            Verified.
        base : mapping of str to ndarray
            The model that came.
        staying : frozenset of str
            Names of the parameters that stay (`common.local_layers.local_names`).
        withdrawn : int
            How many cases are withdrawn by now: older layers may know one of them.
        """
        kept = self.find(plan.campaign)
        if kept is None:
            return {}
        private = plan.privacy.epsilon is not None
        usable = (
            kept.architecture == plan.recipe.model.architecture
            and kept.round < plan.round
            and kept.withdrawn >= withdrawn
            and (kept.private or not private)
            and fits(kept.tensors, base, staying)
        )
        if not usable:
            logger.warning("local-layers-not-used campaign=%s", plan.campaign)
            return {}
        return kept.tensors

    def forget(self) -> bool:
        """Remove all of them; tell whether there were any."""
        files = self.files()
        for path in files:
            path.unlink(missing_ok=True)
        return bool(files)

    def files(self) -> list[Path]:
        """Return where they are kept, a file a campaign."""
        return list(self._folder.glob("*.safetensors"))

    def _prune(self, written: Path) -> None:
        """Remove all but the newest; the file just written is that, whatever the clock says."""
        others = {p: p.stat().st_mtime_ns for p in self._folder.glob("*.safetensors")}
        now = others.pop(written, 0)
        latest = max(others.values(), default=0)
        if 0 < now <= latest:  # the clock was set back; the next campaign must know the order, too
            os.utime(written, ns=(latest + _TICK, latest + _TICK))
        for old in sorted(others, key=others.__getitem__)[: -(KEPT - 1)]:
            old.unlink(missing_ok=True)

    def _path(self, campaign: str) -> Path:
        return self._folder / f"{campaign}.safetensors"


def fits(tensors: Tensors, model: Tensors, staying: frozenset[str]) -> bool:
    """Tell whether layers are some of a model's own that stay, of its shapes, and finite."""
    return tensors.keys() <= staying and all(
        name in model
        and array.shape == model[name].shape
        and array.dtype == np.float32
        and bool(np.isfinite(array).all())
        for name, array in tensors.items()
    )
