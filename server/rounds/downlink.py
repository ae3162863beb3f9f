"""The model on its way to the sites: whole once, then as the steps that it makes.

The coordinator itself takes the step that it sends: it compresses the step that it wishes to take
and moves the model by what the sites will decode. So all ends hold the same bits, which the plan's
digest proves, and what rounding leaves is added to the next step (error feedback at the server,
Tang et al. 2019, arXiv:1905.05957, section 3). Tensors that no step has moved are never sent again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.compression import Compression, compress
from common.update import Tensors, apply, tensors_digest
from common.wire import ModelStep, PackedStep, pack_tensors

_STATE = "downlink/"


class DownLink:
    """The steps of one campaign's model.

    Parameters
    ----------
    compression : {"none", "fp16", "int8", "top-k"}
        The recipe's. With ``none`` the whole model is sent each time; steps are dense, so with
        ``top-k`` they are sent as ``int8``.
    """

    def __init__(self, compression: Compression) -> None:
        self._kind: Compression = "int8" if compression == "top-k" else compression
        self._left: dict[str, NDArray[np.float32]] = {}
        self._step: PackedStep | None = None
        self._to = ""

    def advance(
        self, before: Tensors, wanted: Tensors, *, number: int
    ) -> dict[str, NDArray[np.generic]]:
        """Return the model after a round: as near to ``wanted`` as the step can say.

        Parameters
        ----------
        before : mapping of str to ndarray
            The model that sites hold.
        wanted : mapping of str to ndarray
            What the server's optimizer made of it.
        number : int
            The round, from 1.
        """
        self._step = None
        moved = {n: a for n, a in wanted.items() if not np.array_equal(a, before[n])}
        names = sorted(moved.keys() | self._left.keys())
        if self._kind == "none" or any(wanted[n].dtype != np.float32 for n in names):
            return dict(wanted)
        delta = {n: np.subtract(wanted[n], before[n], dtype=np.float32) for n in names}
        memory = {n: self._left.get(n, np.zeros_like(delta[n])) for n in names}
        found = compress(delta, self._kind, seed=number.to_bytes(8, "little"), memory=memory)
        self._left = found.left
        after = apply(before, found.decoded)
        header = ModelStep(base_digest=tensors_digest(before), compression=self._kind)
        self._step = PackedStep(header, pack_tensors(found.packed.arrays))
        self._to = tensors_digest(after)
        return after

    def step_to(self, digest: str) -> PackedStep | None:
        """Return the newest step, if it leads to this model."""
        return self._step if digest == self._to else None

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return what a checkpoint must hold; the step itself is not: a resumed one sends all."""
        return {f"{_STATE}{name}": array for name, array in self._left.items()}

    def restore(self, state: Tensors) -> None:
        """Go on from `state`."""
        self._left = {
            key.removeprefix(_STATE): array.astype(np.float32)
            for key, array in state.items()
            if key.startswith(_STATE)
        }
