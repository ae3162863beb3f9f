"""What travels through Flower: the only room that knows its `RecordDict`.

A request is a signed plan and the base tensors; a reply is a JSON header and, after training,
the update's tensors. Tensors travel as one safetensors blob, never pickle.

Both ends read what somebody else wrote: sizes are limited before anything is parsed, and only
`PlanRefused` (at a site) or `UpdateRefused` (at the coordinator) comes out.
"""

from __future__ import annotations

from common.wire.content import Content, content_of
from common.wire.descriptions import (
    describe_request,
    description_to_records,
    records_to_description,
    records_to_query,
)
from common.wire.framing import pack_tensors
from common.wire.headers import ModelStep, SiteDescription
from common.wire.replies import records_to_reply, reply_to_records
from common.wire.requests import (
    PackedStep,
    records_to_correction,
    records_to_request,
    records_to_step,
    request_to_records,
)

__all__ = [
    "Content",
    "ModelStep",
    "PackedStep",
    "SiteDescription",
    "content_of",
    "describe_request",
    "description_to_records",
    "pack_tensors",
    "records_to_correction",
    "records_to_description",
    "records_to_query",
    "records_to_reply",
    "records_to_request",
    "records_to_step",
    "reply_to_records",
    "request_to_records",
]
