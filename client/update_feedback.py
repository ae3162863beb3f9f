"""Compressing an update at the site, with what rounding left over kept for the next round.

The memory is what the last round's update was more than what was sent (error feedback, Karimireddy
et al. 2019, arXiv:1901.09847, algorithm 2). It is made from the finished update alone. Under
differential privacy that is the noised one, so memory and compression are post-processing (Dwork
and Roth 2014, proposition 2.1) and cost no epsilon. Without privacy it says as much about patients
as an update does, so it lies in the site's own folder, readable by its user alone.

What is left of a round without privacy is never added to one with: it would carry patients past
the noise. The memory belongs to one campaign, and to tensors of one shape; it goes with the
campaign's last round, with another campaign's first, and when a patient withdraws. It is written
before the reply leaves. So where a reply is lost, what was sent is lost, as without compression,
and the memory still holds exactly what was not sent.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from client.settings import SiteSettings
from client.withdrawn_mark import mark, read_mark
from common.compression import Compression, compress
from common.folders import write_private
from common.plan import RoundPlan
from common.update import ModelUpdate

logger = logging.getLogger(__name__)

_KEY = "feedback"
Floats = dict[str, NDArray[np.float32]]


class _Header(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    campaign: str
    round: int
    compression: Compression
    private: bool


def compress_update(
    settings: SiteSettings, plan: RoundPlan, update: ModelUpdate, *, withdrawn: int
) -> ModelUpdate:
    """Return the update as the coordinator will decode it, with its compressed form.

    Parameters
    ----------
    settings : SiteSettings
        Where the memory is kept.
    plan : RoundPlan
        Verified; its recipe names the compression. The nonce seeds stochastic rounding, which may
        be public.
    update : ModelUpdate
        Finished: under privacy, noised.
    withdrawn : int
        How many cases had been withdrawn when the round read its own (`client.withdrawn_mark`). A
        memory from before that is not added.
    """
    spec = plan.recipe.federation
    if spec.compression == "none":
        forget_feedback(settings)
        return update
    found = compress(
        update.tensors,
        spec.compression,
        seed=bytes.fromhex(plan.nonce),
        fraction=spec.top_k_fraction,
        memory=_memory(settings, plan, update, withdrawn),
    )
    if plan.round < plan.rounds:
        _keep(settings, plan, found.left, withdrawn)
    else:
        forget_feedback(settings)
    return ModelUpdate(update.binding, found.decoded, found.packed)


def forget_feedback(settings: SiteSettings) -> None:
    """Remove the memory; harmless where there is none."""
    feedback_file(settings).unlink(missing_ok=True)


def feedback_file(settings: SiteSettings) -> Path:
    """Return where it is kept."""
    return settings.data / "update-feedback.safetensors"


def _keep(settings: SiteSettings, plan: RoundPlan, left: Floats, withdrawn: int) -> None:
    header = _Header(
        campaign=plan.campaign,
        round=plan.round,
        compression=plan.recipe.federation.compression,
        private=plan.privacy.epsilon is not None,
    )
    data = save(
        {name: np.array(array, order="C") for name, array in left.items()},
        metadata={_KEY: header.model_dump_json(), **mark(withdrawn)},
    )
    try:
        write_private(feedback_file(settings), data)
    except Exception as error:  # it only costs accuracy; an old memory would be counted twice
        logger.warning("feedback-not-kept error=%s", type(error).__name__)
        forget_feedback(settings)


def _memory(
    settings: SiteSettings, plan: RoundPlan, update: ModelUpdate, withdrawn: int
) -> Floats | None:
    try:
        with safe_open(os.fspath(feedback_file(settings)), framework="numpy") as file:
            made = read_mark(file.metadata())
            header = _Header.model_validate_json((file.metadata() or {}).get(_KEY, ""))
            left = {n: np.asarray(file.get_tensor(n)) for n in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, ValidationError):
        logger.warning("feedback-damaged")
        return None
    compression = plan.recipe.federation.compression
    usable = (
        made >= withdrawn
        and (header.campaign, header.compression) == (plan.campaign, compression)
        and (header.private or plan.privacy.epsilon is None)
        and header.round < plan.round
        and _fits(left, update)
    )
    return left if usable else None


def _fits(left: Floats, update: ModelUpdate) -> bool:
    if left.keys() != update.tensors.keys():
        return False
    return all(
        left[name].shape == array.shape
        and left[name].dtype == np.float32
        and bool(np.isfinite(left[name]).all())
        for name, array in update.tensors.items()
    )
