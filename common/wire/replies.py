"""A site's reply: a refusal, a forecast, or a receipt with the update that it is of."""

from __future__ import annotations

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray

from common.compression import Compression, Packed, Shapes, apparent_shapes, decode
from common.errors import UpdateRefused
from common.records import SiteReply
from common.update import ModelUpdate, UpdateBinding
from common.wire.framing import TENSORS, malformed, pack, read_header, read_tensors
from common.wire.headers import Binding, Reply, binding_of


def reply_to_records(reply: SiteReply) -> RecordDict:
    """Pack a site's reply."""
    update = reply.update
    packed = update.packed if update is not None else None
    header = Reply(
        site=reply.site,
        refusal=reply.refusal,
        receipt=reply.receipt,
        binding=binding_of(update.binding) if update is not None else None,
        compression=packed.kind if packed is not None else "none",
        evaluation=reply.evaluation,
        forecast=reply.forecast,
    )
    if packed is not None:
        return pack(header, packed.arrays)
    return pack(header, update.tensors if update is not None else None)


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
    header = read_header(records, Reply, UpdateRefused, "reply")
    update = None
    if header.binding is None:
        if TENSORS in records:
            raise malformed(UpdateRefused, "reply")
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


def _update(
    records: RecordDict, binding: Binding, kind: Compression, shapes: Shapes | None
) -> ModelUpdate:
    arrays = read_tensors(records, UpdateRefused, "reply")
    bound = UpdateBinding(binding.campaign, binding.round, binding.nonce, binding.base_digest)
    if kind != "none":
        own = apparent_shapes(arrays) if shapes is None else shapes
        return ModelUpdate(bound, decode(Packed(kind, arrays), own))
    tensors: dict[str, NDArray[np.float32]] = {}
    for name, array in arrays.items():
        if array.dtype != np.float32:
            raise malformed(UpdateRefused, "reply")
        tensors[name] = array.astype(np.float32, copy=False)
    return ModelUpdate(bound, tensors)
