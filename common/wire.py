"""What travels through Flower: the only module that knows its `RecordDict`.

A request is a signed plan and the base tensors; a reply is a JSON header and, after training,
the update's tensors. Tensors travel as one safetensors blob: Flower moves every array as objects
of its own, which costs a network of 360 tensors 720 round trips. Never pickle.

Both ends read what somebody else wrote: sizes are limited before anything is parsed, and only
`PlanRefused` (at a site) or `UpdateRefused` (at the coordinator) comes out.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.numpy import load as load_blob
from safetensors.numpy import save as save_blob

from common.compression import Compression, Packed, Shapes, apparent_shapes, decode
from common.errors import PlanRefused, UpdateRefused
from common.evaluation import SiteEvaluation
from common.plan import MAXIMUM_PLAN_BYTES, Hex64, Identifier, SignedPlan
from common.records import Forecast, Receipt, Refusal, SiteReply
from common.signing import Signature
from common.update import ModelUpdate, Tensors, UpdateBinding

MAXIMUM_HEADER_BYTES = 16 * 1024 * 1024
MAXIMUM_TENSOR_BYTES = 2 * 1024**3
MAXIMUM_TENSORS = 20_000
TENSOR_DTYPES = (
    *("float32", "float64", "float16", "int64", "int32", "uint32", "int8", "uint8"),
    "bool",
)

_HEADER = "wardround.header"
_TENSORS = "wardround.tensors"
_CORRECTION = "wardround.correction"
_KEY = "json"
_BLOB = "safetensors"

Header = TypeVar("Header", bound=BaseModel)


class SiteDescription(BaseModel):
    """A site's answer to ``describe``: who it is and what software it runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: Identifier
    software: Annotated[str, Field(min_length=1, max_length=64)]


class _Query(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    query: Literal["describe"] = "describe"


class ModelStep(BaseModel):
    """What a request's tensors are where they are no whole model: a step from another one.

    ``base_digest`` is that of the model that the step starts from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_digest: Hex64
    compression: Compression


@dataclass(frozen=True)
class PackedStep:
    """A step with its compressed tensors, packed once for requests to many sites."""

    header: ModelStep
    tensors: ArrayRecord


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    plan: Annotated[str, Field(max_length=2 * MAXIMUM_PLAN_BYTES)]
    signature: Annotated[str, Field(max_length=128)]
    key_id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    step: ModelStep | None = None
    correction: Annotated[Compression | None, Field(exclude_if=lambda value: value is None)] = None


class _Binding(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    campaign: Identifier
    round: Annotated[int, Field(ge=1)]
    nonce: Hex64
    base_digest: Hex64


class _Reply(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    site: Identifier
    refusal: Refusal | None = None
    receipt: Receipt | None = None
    binding: _Binding | None = None
    compression: Compression = "none"
    evaluation: SiteEvaluation | None = None
    forecast: Forecast | None = None

    @model_validator(mode="after")
    def _consistent(self) -> _Reply:
        if [self.refusal, self.receipt, self.forecast].count(None) != 2:
            raise ValueError("exactly one of refusal, receipt and forecast is needed")
        forecast = self.forecast
        if forecast is not None and (forecast.site != self.site or self.evaluation is not None):
            raise ValueError("a forecast is another site's, or carries an evaluation")
        if self.receipt is None:
            if self.binding is not None:
                raise ValueError("only a receipt carries an update")
            return self
        if self.binding is None and self.compression != "none":
            raise ValueError("nothing is compressed")
        if self.receipt.site != self.site:
            raise ValueError("the receipt is another site's")
        if (self.receipt.update_digest is None) != (self.binding is None):
            raise ValueError("the receipt and the update do not belong together")
        if self.binding is not None and self.binding != _binding_of(self.receipt):
            raise ValueError("the update is bound to another request than its receipt")
        return self


def describe_request() -> RecordDict:
    """Ask a site who it is (message type ``query``)."""
    return _pack(_Query(), None)


def records_to_query(records: RecordDict) -> None:
    """Check that a query is ``describe``.

    Raises
    ------
    PlanRefused
        Code ``request-malformed`` or ``request-too-large``.
    """
    _header(records, _Query, PlanRefused, "request")


def description_to_records(description: SiteDescription) -> RecordDict:
    """Answer ``describe``."""
    return _pack(description, None)


def records_to_description(records: RecordDict) -> SiteDescription:
    """Read the answer to ``describe``.

    Raises
    ------
    UpdateRefused
        Code ``reply-malformed`` or ``reply-too-large``.
    """
    return _header(records, SiteDescription, UpdateRefused, "reply")


def pack_tensors(tensors: Tensors) -> ArrayRecord:
    """Serialise tensors once, for requests to many sites."""
    # ascontiguousarray would turn a scalar into a vector.
    blob = save_blob({name: np.array(array, order="C") for name, array in tensors.items()})
    return ArrayRecord({_BLOB: Array(dtype="uint8", shape=(len(blob),), stype=_BLOB, data=blob)})


def request_to_records(
    signed: SignedPlan,
    tensors: Tensors | ArrayRecord | PackedStep,
    correction: Packed | None = None,
) -> RecordDict:
    """Pack a round's request: plan bytes as they were signed, and the base model's tensors.

    ``tensors`` may be packed already, by `pack_tensors`, or be the step that leads to the base.
    ``correction`` is what one site adds to its gradients, compressed (`common.correction`).
    """
    step = tensors if isinstance(tensors, PackedStep) else None
    header = _Request(
        plan=b64encode(signed.payload).decode(),
        signature=b64encode(signed.signature.value).decode(),
        key_id=signed.signature.key_id,
        step=step.header if step is not None else None,
        correction=correction.kind if correction is not None else None,
    )
    records = _pack(header, tensors.tensors if isinstance(tensors, PackedStep) else tensors)
    if correction is not None:
        records[_CORRECTION] = pack_tensors(correction.arrays)
    return records


def records_to_request(
    records: RecordDict,
) -> tuple[SignedPlan, dict[str, NDArray[np.generic]]]:
    """Unpack a request at a site. The plan is not verified yet: see `common.plan.verify_plan`.

    Raises
    ------
    PlanRefused
        Code ``request-malformed`` or ``request-too-large``.
    """
    header = _header(records, _Request, PlanRefused, "request")
    try:
        payload = b64decode(header.plan, validate=True)
        value = b64decode(header.signature, validate=True)
    except ValueError as error:  # binascii.Error is one; non-ASCII text is another
        raise _malformed(PlanRefused, "request") from error
    tensors = _tensors(records, PlanRefused, "request")
    return SignedPlan(payload, Signature(header.key_id, value)), tensors


def records_to_step(records: RecordDict) -> ModelStep | None:
    """Tell whether a request's tensors are a step, and from where; raises as the above."""
    return _header(records, _Request, PlanRefused, "request").step


def records_to_correction(records: RecordDict) -> Packed | None:
    """Return the correction that a request carries, as it travels; raises as the above."""
    kind = _header(records, _Request, PlanRefused, "request").correction
    if (kind is None) != (_CORRECTION not in records):
        raise _malformed(PlanRefused, "request")
    if kind is None:
        return None
    return Packed(kind, _tensors(records, PlanRefused, "request", key=_CORRECTION))


def reply_to_records(reply: SiteReply) -> RecordDict:
    """Pack a site's reply."""
    update = reply.update
    packed = update.packed if update is not None else None
    header = _Reply(
        site=reply.site,
        refusal=reply.refusal,
        receipt=reply.receipt,
        binding=_binding_of(update.binding) if update is not None else None,
        compression=packed.kind if packed is not None else "none",
        evaluation=reply.evaluation,
        forecast=reply.forecast,
    )
    if packed is not None:
        return _pack(header, packed.arrays)
    return _pack(header, update.tensors if update is not None else None)


def records_to_reply(
    records: RecordDict,
    *,
    shapes: Shapes | None = None,
    compression: Compression | None = None,
) -> SiteReply:
    """Unpack a reply at the coordinator, and hold it against its own receipt.

    Whether it answers the request that was sent is `server.rounds.update_checks`'s to say.

    Parameters
    ----------
    records : RecordDict
        As it came.
    shapes : mapping of str to tuple of int, optional
        Of the update's tensors, as the reader knows them: they bound what a compressed update
        is decoded to. Without them, the arrays' own shapes do, and ``top-k`` cannot be read.
    compression : str, optional
        What the plan asked for. An update that is not compressed is read in any case.

    Raises
    ------
    UpdateRefused
        Code ``reply-malformed``, ``reply-too-large``, ``update-compression`` or
        ``update-digest``.
    """
    header = _header(records, _Reply, UpdateRefused, "reply")
    update = None
    if header.binding is None:
        if _TENSORS in records:
            raise _malformed(UpdateRefused, "reply")
    else:
        if header.compression not in ("none", compression or header.compression):
            raise UpdateRefused(
                "An update is compressed otherwise than asked.", code="update-compression"
            )
        update = _update(records, header.binding, header.compression, shapes)
        if header.receipt is None or header.receipt.update_digest != update.digest:
            raise UpdateRefused(
                "An update differs from the one on its receipt.", code="update-digest"
            )
    return SiteReply(
        header.site, header.refusal, header.receipt, update, header.evaluation, header.forecast
    )


@dataclass(frozen=True)
class Content:
    """How much a message carries, and what: bytes, and the SHA-256 (hex) over all of them."""

    bytes: int
    sha256: str


def content_of(records: RecordDict) -> Content:
    """Measure what a message carries, the same at the end that sends it and the one that gets it.

    Names and lengths go into the digest too. What Flower and TLS wrap around it is not counted.
    Never raises for what somebody else made: values of other kinds count as their ``repr``.
    """
    digest, total = hashlib.sha256(), 0
    for name in sorted(records):
        record = records[name]
        for key in sorted(record):
            value = record[key]
            data = value.data if isinstance(value, Array) else value
            if not isinstance(data, bytes):
                data = repr(data).encode("utf-8", "surrogatepass")
            digest.update(f"{name!r} {key!r} {len(data)}\n".encode())
            digest.update(data)
            total += len(data)
    return Content(total, digest.hexdigest())


def _update(
    records: RecordDict, binding: _Binding, kind: Compression, shapes: Shapes | None
) -> ModelUpdate:
    arrays = _tensors(records, UpdateRefused, "reply")
    bound = UpdateBinding(binding.campaign, binding.round, binding.nonce, binding.base_digest)
    if kind != "none":
        own = apparent_shapes(arrays) if shapes is None else shapes
        return ModelUpdate(bound, decode(Packed(kind, arrays), own))
    tensors: dict[str, NDArray[np.float32]] = {}
    for name, array in arrays.items():
        if array.dtype != np.float32:
            raise _malformed(UpdateRefused, "reply")
        tensors[name] = array.astype(np.float32, copy=False)
    return ModelUpdate(bound, tensors)


def _binding_of(source: UpdateBinding | Receipt) -> _Binding:
    return _Binding(
        campaign=source.campaign,
        round=source.round,
        nonce=source.nonce,
        base_digest=source.base_digest,
    )


def _pack(header: BaseModel, tensors: Tensors | ArrayRecord | None) -> RecordDict:
    records = RecordDict({_HEADER: ConfigRecord({_KEY: header.model_dump_json().encode()})})
    if tensors is not None:
        packed = tensors if isinstance(tensors, ArrayRecord) else pack_tensors(tensors)
        records[_TENSORS] = packed
    return records


def _header(
    records: RecordDict,
    model: type[Header],
    refusal: type[PlanRefused] | type[UpdateRefused],
    what: str,
) -> Header:
    record = records.get(_HEADER)
    if not isinstance(record, ConfigRecord) or set(record) != {_KEY}:
        raise _malformed(refusal, what)
    data = record[_KEY]
    if not isinstance(data, bytes):
        raise _malformed(refusal, what)
    if len(data) > MAXIMUM_HEADER_BYTES:
        raise refusal(f"A {what} is too large.", code=f"{what}-too-large")
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise _malformed(refusal, what) from error


def _tensors(
    records: RecordDict,
    refusal: type[PlanRefused] | type[UpdateRefused],
    what: str,
    *,
    key: str = _TENSORS,
) -> dict[str, NDArray[np.generic]]:
    record = records.get(key)
    if not isinstance(record, ArrayRecord) or set(record) != {_BLOB}:
        raise _malformed(refusal, what)
    blob = record[_BLOB].data
    if not isinstance(blob, bytes) or record[_BLOB].stype != _BLOB:
        raise _malformed(refusal, what)
    if len(blob) > MAXIMUM_TENSOR_BYTES:
        raise refusal(f"A {what} is too large.", code=f"{what}-too-large")
    try:
        arrays = load_blob(blob)
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise _malformed(refusal, what) from error
    if len(arrays) > MAXIMUM_TENSORS:
        raise refusal(f"A {what} is too large.", code=f"{what}-too-large")
    if any(array.dtype.name not in TENSOR_DTYPES for array in arrays.values()):
        raise _malformed(refusal, what)
    return {name: np.array(array) for name, array in arrays.items()}


def _malformed(refusal: type[PlanRefused] | type[UpdateRefused], what: str) -> WireRefusal:
    return refusal(f"A {what} breaks the wire format.", code=f"{what}-malformed")


WireRefusal = PlanRefused | UpdateRefused
