"""MedMNIST's layout: one npz with train/val/test images and labels (arXiv:2110.14795)."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from client.intake.source import ImportSource, SourceRow, SourceRows
from common.errors import InputRefused
from common.imaging import DEFAULT_LIMITS, ImageLimits, encode_png

_SPLITS = ("train", "val", "test")
_MAXIMUM_LABELS = 50_000_000
# RuntimeError: encrypted; NotImplementedError: a compression that zipfile does not know. The last
# two: a header that is not even Python, which numpy tokenizes before it parses it.
_DAMAGE = (
    *(OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error),
    *(SyntaxError, tokenize.TokenError),
)


@dataclass(frozen=True)
class _Part:
    split: str
    shape: tuple[int, ...]
    labels: NDArray[np.integer]


def read_npz(source: ImportSource, *, limits: ImageLimits = DEFAULT_LIMITS) -> SourceRows:
    """Open an npz with ``{train,val,test}_images`` (uint8, N x H x W [x 3]) and ``_labels``.

    Nothing is unpickled, and images are read one by one: the file may be larger than memory.

    Raises
    ------
    InputRefused
        If it is no such file, or `ImportSource.class_order` does not say what its numbers mean.
    """
    if not source.class_order:
        raise InputRefused(
            "The labels of an npz are numbers, and nothing says what they mean.",
            action="Name the classes of 0, 1, … in the data set's order: --class-order A,B,…",
            code="labels-numeric",
        )
    try:
        with zipfile.ZipFile(source.data) as archive:
            parts = [_part(archive, split, limits) for split in _present(archive)]
    except _DAMAGE as error:
        raise InputRefused(
            f"{source.data} cannot be read as npz ({type(error).__name__}).",
            meaning="It is damaged, or holds pickled objects, which are never opened.",
            code="npz-unreadable",
        ) from error
    if not parts:
        raise InputRefused(
            f"{source.data} has no train_images and train_labels.", code="npz-layout"
        )
    return SourceRows(sum(len(part.labels) for part in parts), _rows(source.data, parts))


def _present(archive: zipfile.ZipFile) -> list[str]:
    names = set(archive.namelist())
    return [s for s in _SPLITS if {f"{s}_images.npy", f"{s}_labels.npy"} <= names]


def _part(archive: zipfile.ZipFile, split: str, limits: ImageLimits) -> _Part:
    with archive.open(f"{split}_images.npy") as stream:
        shape, dtype = _header(stream)
    grey_or_rgb = len(shape) == 3 or (len(shape) == 4 and shape[3] == 3)
    if not grey_or_rgb or dtype != np.uint8 or shape[1] * shape[2] > limits.pixels:
        raise InputRefused(
            f"{split}_images has shape {shape} and type {dtype}.",
            action="It must be N x H x W or N x H x W x 3 of uint8.",
            code="npz-layout",
        )
    with archive.open(f"{split}_labels.npy") as stream:
        label_shape, label_dtype = _header(stream)
        if label_dtype.kind not in "iu" or math.prod(label_shape) != shape[0]:
            raise InputRefused(
                f"{split}_labels has shape {label_shape} and type {label_dtype}.",
                action="It must be one whole number an image.",
                code="npz-layout",
            )
        if shape[0] > _MAXIMUM_LABELS:
            raise InputRefused(f"{split}_labels is too large.", code="npz-layout")
        data = _read_exactly(stream, shape[0] * label_dtype.itemsize)
    return _Part(split, shape, np.frombuffer(data, label_dtype))


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if dtype.hasobject or (fortran and len(shape) > 1):
        raise ValueError("object or Fortran-ordered array")
    return shape, dtype


def _rows(path: Path, parts: list[_Part]) -> Iterator[SourceRow]:
    number = 0
    with zipfile.ZipFile(path) as archive:
        for part in parts:
            with archive.open(f"{part.split}_images.npy") as stream:
                _header(stream)
                for label in part.labels:
                    number += 1
                    pixels = _next_image(stream, part.shape[1:])
                    yield SourceRow(
                        number=number,
                        file=f"{part.split}/{number}",
                        load=_encoder(pixels),
                        label=str(int(label)),
                        split=part.split,
                    )


def _next_image(stream: IO[bytes], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    try:
        data = _read_exactly(stream, math.prod(shape))
    except _DAMAGE as error:
        raise InputRefused(
            "The npz is damaged; the images before the damage were kept.", code="npz-unreadable"
        ) from error
    return np.frombuffer(data, np.uint8).reshape(shape)


def _read_exactly(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise EOFError("the array ends early")
    return data


def _encoder(pixels: NDArray[np.uint8]) -> Callable[[], bytes]:
    return lambda: encode_png(pixels)
