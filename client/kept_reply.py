"""The newest trained reply, kept at the site until the next: for a coordinator that lost it.

A round is trained once, and its privacy is spent then, whether or not the answer arrives. Where
the same round is asked for again, under a new nonce, the same update is sent again: what was
released before says nothing new the second time, so it costs no privacy (post-processing, Dwork
and Roth 2014, proposition 2.1). Without it, a coordinator that was killed at the wrong moment
could not go on with that round.
"""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from client.settings import SiteSettings
from client.withdrawn_mark import mark, read_mark
from common.compression import Compression, Packed
from common.evaluation import SiteEvaluation
from common.folders import write_private
from common.plan import RoundPlan
from common.records import Receipt, SiteReply
from common.update import ModelUpdate, UpdateBinding

logger = logging.getLogger(__name__)

_KEY = "reply"
_SAID, _SENT = "said/", "sent/"
"""Before the names of what the update says, and of its compressed form, where it has one."""
_OF_ONE_REQUEST = {"nonce", "issued_at", "expires_at"}


class _Header(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    asked: str
    compression: Compression
    receipt: Receipt
    evaluation: SiteEvaluation | None


def keep_reply(
    settings: SiteSettings, plan: RoundPlan, reply: SiteReply, *, withdrawn: int = 0
) -> None:
    """Keep a trained reply in place of the one before; a full disk only costs the repetition.

    ``withdrawn`` is what `client.withdrawn_mark` says of it.
    """
    if reply.update is None or reply.receipt is None:
        return
    packed = reply.update.packed
    header = _Header(
        asked=_asked(plan),
        compression=packed.kind if packed is not None else "none",
        receipt=reply.receipt,
        evaluation=reply.evaluation,
    )
    parts = {_SAID: reply.update.tensors, _SENT: packed.arrays if packed is not None else {}}
    tensors = {p + n: np.array(a, order="C") for p, part in parts.items() for n, a in part.items()}
    told = {_KEY: header.model_dump_json(), **mark(withdrawn)}
    try:
        write_private(reply_file(settings), save(tensors, metadata=told))
    except Exception as error:  # the reply itself must leave all the same
        logger.warning("reply-not-kept error=%s", type(error).__name__)


def kept_reply(
    settings: SiteSettings, plan: RoundPlan, *, scores: bool, withdrawn: int
) -> SiteReply | None:
    """Return the reply to an earlier request for the same, bound to this one; None without one.

    Parameters
    ----------
    plan : RoundPlan
        Verified and accepted. All but its nonce and its times must be as they were.
    scores : bool
        Whether holdout counts may leave with it.
    withdrawn : int
        How many cases are withdrawn by now: an older reply may know one of them, and is none.
    """
    found = _read(reply_file(settings), withdrawn)
    if found is None or plan.purpose != "train" or found[0].asked != _asked(plan):
        return None
    header, stored = found
    tensors = {n.removeprefix(_SAID): a for n, a in stored.items() if n.startswith(_SAID)}
    sent = {n.removeprefix(_SENT): a for n, a in stored.items() if n.startswith(_SENT)}
    bound = UpdateBinding(plan.campaign, plan.round, plan.nonce, plan.base_digest)
    first = replace(bound, nonce=header.receipt.nonce)
    if ModelUpdate(first, tensors).digest != header.receipt.update_digest:
        logger.warning("kept-reply-damaged")
        return None
    packed = Packed(header.compression, sent) if header.compression != "none" else None
    update = ModelUpdate(bound, tensors, packed)
    changes = {"nonce": plan.nonce, "update_digest": update.digest, "seconds": 0.0}
    receipt = header.receipt.model_copy(update=changes)
    evaluation = header.evaluation if scores else None
    logger.info("reply-repeated campaign=%s round=%d", plan.campaign, plan.round)
    return SiteReply(settings.name, receipt=receipt, update=update, evaluation=evaluation)


def forget_reply(settings: SiteSettings) -> None:
    """Remove it, as when a patient who may be in it withdraws."""
    reply_file(settings).unlink(missing_ok=True)


def reply_file(settings: SiteSettings) -> Path:
    """Return where it is kept."""
    return settings.data / "newest-reply.safetensors"


def _asked(plan: RoundPlan) -> str:
    return hashlib.sha256(plan.model_dump_json(exclude=_OF_ONE_REQUEST).encode()).hexdigest()


def _read(path: Path, withdrawn: int) -> tuple[_Header, dict[str, NDArray[Any]]] | None:
    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            if read_mark(file.metadata()) < withdrawn:
                return None
            told = (file.metadata() or {}).get(_KEY, "")
            tensors = {n: np.asarray(file.get_tensor(n)) for n in file.keys()}  # noqa: SIM118
        return _Header.model_validate_json(told), tensors
    except (OSError, SafetensorError, ValidationError):
        return None
