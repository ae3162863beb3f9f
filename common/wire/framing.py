"""A message's frame: one JSON header, and safetensors blobs beside it.

Tensors travel as one blob: Flower moves every array as objects of its own, which costs a network
of 360 tensors 720 round trips.
"""

from __future__ import annotations

from typing import TypeAlias, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_blob
from safetensors.numpy import save as save_blob

from common.errors import PlanRefused, UpdateRefused
from common.update import Tensors

MAXIMUM_HEADER_BYTES = 16 * 1024 * 1024
MAXIMUM_TENSOR_BYTES = 2 * 1024**3
MAXIMUM_TENSORS = 20_000
TENSOR_DTYPES = (
    *("float32", "float64", "float16", "int64", "int32", "uint32", "int8", "uint8"),
    "bool",
)

TENSORS = "wardround.tensors"
CORRECTION = "wardround.correction"
_HEADER = "wardround.header"
_KEY = "json"
_BLOB = "safetensors"

Header = TypeVar("Header", bound=BaseModel)

WireRefusal: TypeAlias = PlanRefused | UpdateRefused
Refuses: TypeAlias = type[PlanRefused] | type[UpdateRefused]
"""What the reading end raises: a site the first, the coordinator the second."""


def pack_tensors(tensors: Tensors) -> ArrayRecord:
    """Serialise tensors once, for requests to many sites."""
    # ascontiguousarray would turn a scalar into a vector.
    blob = save_blob({name: np.array(array, order="C") for name, array in tensors.items()})
    return ArrayRecord({_BLOB: Array(dtype="uint8", shape=(len(blob),), stype=_BLOB, data=blob)})


def pack(header: BaseModel, tensors: Tensors | ArrayRecord | None) -> RecordDict:
    """Frame a header, and tensors if there are any; they may be packed already."""
    records = RecordDict({_HEADER: ConfigRecord({_KEY: header.model_dump_json().encode()})})
    if tensors is not None:
        packed = tensors if isinstance(tensors, ArrayRecord) else pack_tensors(tensors)
        records[TENSORS] = packed
    return records


def read_header(records: RecordDict, model: type[Header], refusal: Refuses, what: str) -> Header:
    """Read a message's header; ``what`` is ``request`` or ``reply``, for the refusal's code.

    Raises
    ------
    PlanRefused or UpdateRefused
        As ``refusal`` says, with code ``{what}-malformed`` or ``{what}-too-large``.
    """
    record = records.get(_HEADER)
    if not isinstance(record, ConfigRecord) or set(record) != {_KEY}:
        raise malformed(refusal, what)
    data = record[_KEY]
    if not isinstance(data, bytes):
        raise malformed(refusal, what)
    if len(data) > MAXIMUM_HEADER_BYTES:
        raise refusal(f"A {what} is too large.", code=f"{what}-too-large")
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise malformed(refusal, what) from error


def read_tensors(
    records: RecordDict, refusal: Refuses, what: str, *, key: str = TENSORS
) -> dict[str, NDArray[np.generic]]:
    """Read a message's tensors, each an own writeable copy; raises as `read_header`."""
    record = records.get(key)
    if not isinstance(record, ArrayRecord) or set(record) != {_BLOB}:
        raise malformed(refusal, what)
    blob = record[_BLOB].data
    if not isinstance(blob, bytes) or record[_BLOB].stype != _BLOB:
        raise malformed(refusal, what)
    if len(blob) > MAXIMUM_TENSOR_BYTES:
        raise refusal(f"A {what} is too large.", code=f"{what}-too-large")
    try:
        arrays = load_blob(blob)
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise malformed(refusal, what) from error
    if len(arrays) > MAXIMUM_TENSORS:
        raise refusal(f"A {what} is too large.", code=f"{what}-too-large")
    if any(array.dtype.name not in TENSOR_DTYPES for array in arrays.values()):
        raise malformed(refusal, what)
    return {name: np.array(array) for name, array in arrays.items()}


def malformed(refusal: Refuses, what: str) -> WireRefusal:
    """Return the refusal of a message that is not what this version writes."""
    return refusal(f"A {what} breaks the wire format.", code=f"{what}-malformed")
