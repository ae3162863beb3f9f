"""Smaller updates on the wire: what is sent, how it is read back, and what rounding left over.

``fp16``
    Half precision after scaling each tensor by a power of two, so that small deltas do not fall
    into the subnormal range. Half the bytes.
``int8``
    Stochastic rounding to 255 levels with one scale a tensor: QSGD (Alistarh et al. 2017,
    arXiv:1610.02132, section 3.1, with the largest magnitude in place of the norm). A quarter.
``top-k``
    The ``fraction`` of each tensor that is largest in magnitude, as indices and float32 values
    (Aji and Heafield 2017, arXiv:1704.05021).

What rounding or leaving out loses is added to the next update: error feedback (Seide et al. 2014,
Interspeech; Karimireddy et al. 2019, arXiv:1901.09847, algorithm 2).

The reader trusts nothing: how large a result is follows from the shapes that the reader knows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from common.errors import PlanRefused, UpdateRefused

Compression: TypeAlias = Literal["none", "fp16", "int8", "top-k"]
COMPRESSIONS: tuple[Compression, ...] = ("none", "fp16", "int8", "top-k")

Floats: TypeAlias = Mapping[str, NDArray[np.float32]]
Arrays: TypeAlias = Mapping[str, NDArray[np.generic]]
Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
Refusal: TypeAlias = type[PlanRefused] | type[UpdateRefused]

LEVELS = 127
"""Of an int8 on each side of zero; -128 is never used, so that the code is symmetric."""

_HALF_EXPONENT = 15
"""The largest magnitude of a tensor is scaled to below 2 ** 15; half precision ends at 65504."""

_SCALES = "scales"
_VALUES, _INDICES = "values/", "indices/"


@dataclass(frozen=True)
class Packed:
    """Compressed tensors as they travel: arrays by name, whose meaning `kind` says."""

    kind: Compression
    arrays: Arrays


@dataclass(frozen=True)
class Compressed:
    """What is sent, what its reader will make of it, and what is left for the next time."""

    packed: Packed
    decoded: dict[str, NDArray[np.float32]]
    left: dict[str, NDArray[np.float32]]


def compress(
    delta: Floats,
    kind: Compression,
    *,
    seed: bytes,
    fraction: float = 1.0,
    memory: Floats | None = None,
) -> Compressed:
    """Compress a delta together with what the last one left over.

    Parameters
    ----------
    delta : mapping of str to ndarray, float32
        Finite.
    kind : {"none", "fp16", "int8", "top-k"}
        How.
    seed : bytes
        Of the stochastic rounding: the same seed gives the same bytes. It may be public.
    fraction : float, default 1
        Of each tensor's values that ``top-k`` keeps, at least one.
    memory : mapping of str to ndarray, float32, optional
        ``left`` of the call before; of the same names and shapes.
    """
    whole = dict(delta) if memory is None else {n: a + memory[n] for n, a in delta.items()}
    packed = encode(whole, kind, seed=seed, fraction=fraction)
    decoded = decode(packed, {name: array.shape for name, array in whole.items()})
    return Compressed(packed, decoded, {n: whole[n] - decoded[n] for n in whole})


def encode(delta: Floats, kind: Compression, *, seed: bytes, fraction: float = 1.0) -> Packed:
    """Compress tensors; see `compress` for the parameters."""
    names = sorted(delta)
    if kind == "none":
        return Packed(kind, dict(delta))
    if kind == "top-k":
        return Packed(kind, _top(delta, fraction))
    arrays: dict[str, NDArray[np.generic]] = {}
    scales = np.zeros(len(names), dtype=np.float32)
    random = np.random.default_rng(list(seed))
    for index, name in enumerate(names):
        array = delta[name]
        largest = float(np.max(np.abs(array), initial=0.0))
        if kind == "fp16":
            scales[index] = _power_of_two(largest)
            arrays[_VALUES + name] = np.asarray(array / scales[index], dtype=np.float16)
        else:
            scales[index] = np.float32(largest / LEVELS)
            arrays[_VALUES + name] = _rounded(array, scales[index], random)
    return Packed(kind, arrays | {_SCALES: scales})


def decode(
    packed: Packed, shapes: Shapes, *, refusal: Refusal = UpdateRefused
) -> dict[str, NDArray[np.float32]]:
    """Read compressed tensors back; the same bytes give the same floats on every machine.

    Parameters
    ----------
    packed : Packed
        From anywhere.
    shapes : mapping of str to tuple of int
        The reader's own; they bound what is allocated.
    refusal : type, default UpdateRefused
        What is raised.

    Raises
    ------
    UpdateRefused or PlanRefused
        With code ``update-compression``, if names, types, shapes, scales or indices are not what
        `encode` makes, or a value is not finite.
    """
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            found = _decoded(packed, {name: tuple(shapes[name]) for name in sorted(shapes)})
    except ValueError as error:
        raise refusal(
            f"Compressed tensors are malformed: {error}.", code="update-compression"
        ) from error
    return found


def apparent_shapes(arrays: Arrays) -> dict[str, tuple[int, ...]]:
    """Return the shapes that ``fp16`` and ``int8`` arrays claim themselves."""
    return {
        name.removeprefix(_VALUES): array.shape
        for name, array in arrays.items()
        if name.startswith(_VALUES)
    }


def _decoded(packed: Packed, shapes: Shapes) -> dict[str, NDArray[np.float32]]:
    if packed.kind == "none":
        _expect(packed.arrays.keys() == shapes.keys(), "names")
        found = {name: _typed(packed.arrays[name], np.float32, shapes[name]) for name in shapes}
    elif packed.kind == "top-k":
        found = _sparse(packed.arrays, shapes)
    else:
        found = _scaled(packed, shapes)
    # The sum is finite only if all is; float64 does not overflow.
    finite = all(
        math.isfinite(float(np.sum(np.abs(array), dtype=np.float64))) for array in found.values()
    )
    _expect(finite, "a value is not finite")
    return found


def _scaled(packed: Packed, shapes: Shapes) -> dict[str, NDArray[np.float32]]:
    arrays = packed.arrays
    _expect(arrays.keys() == {_SCALES} | {_VALUES + name for name in shapes}, "names")
    scales = _typed(arrays[_SCALES], np.float32, (len(shapes),))
    _expect(bool(np.isfinite(scales).all() and (scales >= 0).all()), "a scale")
    found: dict[str, NDArray[np.float32]] = {}
    for scale, (name, shape) in zip(scales, shapes.items(), strict=True):
        if packed.kind == "fp16":
            values: NDArray[Any] = _typed(arrays[_VALUES + name], np.float16, shape)
        else:
            values = _typed(arrays[_VALUES + name], np.int8, shape)
            _expect(bool((values != -LEVELS - 1).all()), "a level")
        found[name] = np.asarray(np.multiply(values.astype(np.float32), scale), dtype=np.float32)
    return found


def _sparse(arrays: Arrays, shapes: Shapes) -> dict[str, NDArray[np.float32]]:
    _expect(arrays.keys() == {p + n for n in shapes for p in (_VALUES, _INDICES)}, "names")
    found: dict[str, NDArray[np.float32]] = {}
    for name, shape in shapes.items():
        size = math.prod(shape)
        count = arrays[_VALUES + name].size
        _expect(count <= size, "more values than the tensor has")
        values = _typed(arrays[_VALUES + name], np.float32, (count,))
        indices = _typed(arrays[_INDICES + name], np.uint32, (count,))
        rising = bool((indices[1:] > indices[:-1]).all())
        _expect(rising and (count == 0 or int(indices[-1]) < size), "an index")
        dense = np.zeros(size, dtype=np.float32)
        dense[indices] = values
        found[name] = dense.reshape(shape)
    return found


def _top(delta: Floats, fraction: float) -> dict[str, NDArray[np.generic]]:
    arrays: dict[str, NDArray[np.generic]] = {}
    for name, array in delta.items():
        flat = array.reshape(-1)
        count = min(flat.size, max(1, math.ceil(fraction * flat.size)))
        last = max(0, count - 1)
        chosen = np.argpartition(-np.abs(flat), last)[:count] if flat.size else np.empty(0)
        indices = np.sort(chosen.astype(np.uint32))
        arrays[_INDICES + name] = indices
        arrays[_VALUES + name] = flat[indices].astype(np.float32)
    return arrays


def _rounded(
    array: NDArray[np.float32], scale: np.float32, random: np.random.Generator
) -> NDArray[np.int8]:
    if scale == 0:  # all zero, or so small that float32 has no scale for it
        return np.zeros(array.shape, dtype=np.int8)
    levels = np.floor(array / scale + random.random(array.shape, dtype=np.float32))
    return np.asarray(np.clip(levels, -LEVELS, LEVELS), dtype=np.int8)


def _power_of_two(largest: float) -> np.float32:
    _, exponent = math.frexp(largest)
    return np.float32(math.ldexp(1.0, min(120, max(-120, exponent - _HALF_EXPONENT))))


Scalar = TypeVar("Scalar", bound=np.generic)


def _typed(
    array: NDArray[np.generic], dtype: type[Scalar], shape: tuple[int, ...]
) -> NDArray[Scalar]:
    _expect(array.dtype == np.dtype(dtype), "a type")
    _expect(array.shape == shape, "a shape")
    return cast(NDArray[Scalar], array)


def _expect(kept: bool, what: str) -> None:
    if not kept:
        raise ValueError(what)
