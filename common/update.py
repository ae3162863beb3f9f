"""The model update: a delta of the trainable tensors, bound to the round that asked for it.

Whole weights never leave a site. A delta is bound to campaign, round, nonce and base model, so
that one made for another round cannot be slipped in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.compression import Packed
from common.errors import UpdateRefused

Tensors: TypeAlias = Mapping[str, NDArray[np.generic]]


def tensors_digest(tensors: Tensors) -> str:
    """Return the SHA-256 (hex) over sorted names, dtypes, shapes and little-endian bytes.

    Equal for equal tensors on every machine, whatever the order of the mapping.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = np.asarray(tensors[name])
        array = np.ascontiguousarray(array).reshape(array.shape)
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{name}\0{little.dtype.str}\0{little.shape}\0".encode())
        digest.update(little.tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class UpdateBinding:
    """The one request that an update answers."""

    campaign: str
    round: int
    nonce: str
    base_digest: str


@dataclass(frozen=True)
class ModelUpdate:
    """Trained minus base, for each trainable tensor.

    Attributes
    ----------
    binding : UpdateBinding
        What it answers.
    tensors : mapping of str to ndarray, float32
        Shapes as in the base model; in the model's own units. Where the update travels
        compressed, what its reader will decode, so that digest and norm are of that.
    packed : Packed, optional
        The compressed form of ``tensors``; without it they travel as they are.
    """

    binding: UpdateBinding
    tensors: Mapping[str, NDArray[np.float32]]
    packed: Packed | None = field(default=None, compare=False)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the tensors and the binding."""
        b = self.binding
        bound = (
            f"{b.campaign}\0{b.round}\0{b.nonce}\0{b.base_digest}\0{tensors_digest(self.tensors)}"
        )
        return hashlib.sha256(bound.encode()).hexdigest()

    @property
    def norm(self) -> float:
        """Euclidean norm over all tensors, accumulated in float64."""
        total = sum(float(np.square(t, dtype=np.float64).sum()) for t in self.tensors.values())
        return float(np.sqrt(total))


def difference(trained: Tensors, base: Tensors, *, binding: UpdateBinding) -> ModelUpdate:
    """Return ``trained - base`` as float32 for the tensors in ``trained``.

    Raises
    ------
    UpdateRefused
        If a name or a shape does not match, or the difference is not finite.
    """
    delta: dict[str, NDArray[np.float32]] = {}
    for name, after in trained.items():
        before = base.get(name)
        if before is None or before.shape != after.shape:
            raise UpdateRefused("A trained tensor is unlike the base model.", code="update-shape")
        delta[name] = (after.astype(np.float32) - before.astype(np.float32)).astype(np.float32)
        if not np.isfinite(delta[name]).all():
            raise UpdateRefused(
                "Training diverged: the update is not finite.",
                action="Lower the learning rate.",
                code="update-not-finite",
            )
    return ModelUpdate(binding, delta)


def apply(
    base: Tensors, delta: Mapping[str, NDArray[np.floating]]
) -> dict[str, NDArray[np.generic]]:
    """Return ``base + delta`` with the base's dtypes; tensors without a delta are kept.

    Raises
    ------
    UpdateRefused
        If the delta names a tensor that the base lacks, or a shape differs.
    """
    result = {name: np.array(array) for name, array in base.items()}
    for name, change in delta.items():
        if name not in result or result[name].shape != change.shape:
            raise UpdateRefused("An update is unlike the base model.", code="update-shape")
        result[name] = np.add(result[name], change).astype(result[name].dtype)
    return result
