"""A round's request: the signed plan, and the base model's tensors or the step that leads there."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord, RecordDict
from numpy.typing import NDArray

from common.compression import Packed
from common.errors import PlanRefused
from common.plan import SignedPlan
from common.signing import Signature
from common.update import Tensors
from common.wire.framing import CORRECTION, malformed, pack, pack_tensors, read_header, read_tensors
from common.wire.headers import ModelStep, Request


@dataclass(frozen=True)
class PackedStep:
    """A step with its compressed tensors, packed once for requests to many sites."""

    header: ModelStep
    tensors: ArrayRecord


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
    header = Request(
        plan=b64encode(signed.payload).decode(),
        signature=b64encode(signed.signature.value).decode(),
        key_id=signed.signature.key_id,
        step=step.header if step is not None else None,
        correction=correction.kind if correction is not None else None,
    )
    records = pack(header, tensors.tensors if isinstance(tensors, PackedStep) else tensors)
    if correction is not None:
        records[CORRECTION] = pack_tensors(correction.arrays)
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
    header = read_header(records, Request, PlanRefused, "request")
    try:
        payload = b64decode(header.plan, validate=True)
        value = b64decode(header.signature, validate=True)
    except ValueError as error:  # binascii.Error is one; non-ASCII text is another
        raise malformed(PlanRefused, "request") from error
    tensors = read_tensors(records, PlanRefused, "request")
    return SignedPlan(payload, Signature(header.key_id, value)), tensors


def records_to_step(records: RecordDict) -> ModelStep | None:
    """Tell whether a request's tensors are a step, and from where; raises as the above."""
    return read_header(records, Request, PlanRefused, "request").step


def records_to_correction(records: RecordDict) -> Packed | None:
    """Return the correction that a request carries, as it travels; raises as the above."""
    kind = read_header(records, Request, PlanRefused, "request").correction
    if (kind is None) != (CORRECTION not in records):
        raise malformed(PlanRefused, "request")
    if kind is None:
        return None
    return Packed(kind, read_tensors(records, PlanRefused, "request", key=CORRECTION))
