"""Checks on a site's reply before it may touch the model.

A reply must answer the very request that was sent to that site (campaign, round, nonce, base
model), hold exactly the trainable tensors, be finite, and not be larger than training could
have made it. What one update may weigh beside its round's others (its length, the declared number
of patients) is bounded in `server.rounds.aggregation`, from the first round on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import UpdateRefused
from common.plan import RoundPlan
from common.recipe import LocalTraining
from common.records import MAXIMUM_DELTA, MAXIMUM_NOISE_MULTIPLIER, Receipt, SiteReply
from common.update import ModelUpdate, UpdateBinding
from server.rounds.evaluation_checks import check_evaluation

# Honest norms of a network with random weights, one step a round, were 28, 3.4, 0.28, 1.6, 0.07 and
# 1.2 in six rounds, at each of three sites alike.
RELATIVE_LIMIT = 1000.0
MINIMUM_HISTORY = 3
# An AdamW step moves a coordinate by at most lr (1 - b1) / sqrt(1 - b2) = 3.2 lr for betas of
# 0.9 and 0.999 (Kingma and Ba 2015, section 2.1), and usually by less than lr.
ADAM_STEP_LIMIT = 4.0
NOISE_SLACK = 3.0


@dataclass(frozen=True)
class Expected:
    """The request that a reply has to answer.

    ``shapes`` are those of the trainable tensors; ``added`` is the norm of what the site was to
    add to each gradient.
    """

    site: str
    plan: RoundPlan
    shapes: Mapping[str, tuple[int, ...]]
    added: float = 0.0

    @property
    def binding(self) -> UpdateBinding:
        """The binding that the plan asks for."""
        plan = self.plan
        return UpdateBinding(plan.campaign, plan.round, plan.nonce, plan.base_digest)


class NormHistory:
    """Norms of accepted updates, to tell a typical one.

    They need some rounds to say anything, and none can be taken back: a coarse limit, beside the
    round's own bound (`server.rounds.aggregation.norm_factors`).
    """

    def __init__(self) -> None:
        self._norms: list[float] = []

    def add(self, norm: float) -> None:
        """Remember an accepted update's norm; the newest 64 count."""
        self._norms = [*self._norms[-63:], norm]

    @property
    def norms(self) -> tuple[float, ...]:
        """What a checkpoint must hold."""
        return tuple(self._norms)

    def restore(self, norms: tuple[float, ...]) -> None:
        """Go on from `norms`."""
        self._norms = list(norms)

    def forget(self) -> None:
        """Start afresh, as when other parameters begin to move."""
        self._norms = []

    def limit(self) -> float:
        """Return `RELATIVE_LIMIT` times the median, infinity while there are fewer than three."""
        if len(self._norms) < MINIMUM_HISTORY:
            return math.inf
        return RELATIVE_LIMIT * float(np.median(self._norms))


def check_reply(reply: SiteReply, expected: Expected) -> Receipt:
    """Check who answers and what; return the receipt.

    Raises
    ------
    UpdateRefused
        With code ``reply-site``, ``reply-binding``, ``reply-evaluation``, ``reply-receipt``,
        or one of `check_update`.
    """
    if reply.site != expected.site:
        raise UpdateRefused("A site answers under another's name.", code="reply-site")
    receipt = reply.receipt
    if receipt is None:
        raise UpdateRefused("A reply has no receipt.", code="reply-receipt")
    b = UpdateBinding(receipt.campaign, receipt.round, receipt.nonce, receipt.base_digest)
    if b != expected.binding:
        raise UpdateRefused("A receipt is for another request.", code="reply-binding")
    evaluation = reply.evaluation
    if evaluation is not None:
        check_evaluation(evaluation, expected.plan.recipe)
    if expected.plan.purpose == "evaluate":
        if reply.update is not None:
            raise UpdateRefused("An update came unasked.", code="reply-receipt")
        return receipt
    _check_receipt(receipt, expected.plan)
    return receipt


def check_update(
    update: ModelUpdate | None, receipt: Receipt, expected: Expected, history: NormHistory
) -> float:
    """Check an update; return its norm.

    Raises
    ------
    UpdateRefused
        With code ``update-missing``, ``update-binding``, ``update-names``, ``update-shape``,
        ``update-not-finite`` or ``update-norm``.
    """
    if update is None:
        raise UpdateRefused("A reply has no update.", code="update-missing")
    if update.binding != expected.binding:
        raise UpdateRefused("An update is for another request.", code="update-binding")
    if update.tensors.keys() != expected.shapes.keys():
        raise UpdateRefused("An update has other tensors than asked for.", code="update-names")
    if any(update.tensors[name].shape != shape for name, shape in expected.shapes.items()):
        raise UpdateRefused("An update has tensors of other shapes.", code="update-shape")
    if not all(_finite(array) for array in update.tensors.values()):
        raise UpdateRefused("An update is not finite.", code="update-not-finite")
    norm = update.norm
    size = sum(math.prod(shape) for shape in expected.shapes.values())
    private = expected.plan.privacy.epsilon is not None
    # Under privacy a small site's noise is rightly much larger than the others': its own bound.
    limit = private_norm_limit(receipt, expected.plan.training, size) if private else math.inf
    limit += expected.plan.training.learning_rate * max(1, receipt.steps) * expected.added
    if not private:
        limit = history.limit()
    if not norm <= limit:
        raise UpdateRefused(
            "An update is larger than training could have made it.", code="update-norm"
        )
    history.add(norm)
    return norm


def private_norm_limit(receipt: Receipt, training: LocalTraining, size: int) -> float:
    """Return a generous bound on the norm of an honest private update of ``size`` parameters.

    Each DP-SGD step moves along a clipped sum (at most C a sampled patient, with twice the
    expected patients sampled) plus Gaussian noise of deviation sigma C a coordinate, whose norm
    concentrates at sigma C sqrt(size), all divided by the expected batch q N
    (Abadi et al. 2016, arXiv:1607.00133, algorithm 1).
    """
    steps = max(1, receipt.steps)
    if training.optimizer == "adamw":
        reach = training.learning_rate * steps * math.sqrt(size) * ADAM_STEP_LIMIT
    else:
        clip = receipt.max_grad_norm or 0.0
        sigma = receipt.noise_multiplier or 0.0
        batch = max(1.0, receipt.sampling_rate * receipt.public_patients)
        step = 2 * clip + sigma * clip * math.sqrt(size) / batch
        reach = training.learning_rate * steps * step / (1 - training.momentum)
    return NOISE_SLACK * reach


def _check_receipt(receipt: Receipt, plan: RoundPlan) -> None:
    faulty = receipt.public_patients < 1 or receipt.steps > plan.training.local_steps
    faulty = faulty or receipt.sampling_rate != plan.training.sampling_rate
    if plan.privacy.epsilon is not None:
        faulty = faulty or _lacks_privacy(receipt, plan.privacy.epsilon, plan.privacy.max_grad_norm)
    if faulty:
        raise UpdateRefused(
            "A receipt is incomplete, or contradicts the plan.", code="reply-receipt"
        )


def _lacks_privacy(receipt: Receipt, epsilon: float, max_grad_norm: float) -> bool:
    spent, clip, sigma = receipt.epsilon_campaign, receipt.max_grad_norm, receipt.noise_multiplier
    # A site that once trained without privacy, as its policy allowed, can state no bound over its
    # life (`client.privacy`). The campaign's own holds, which is all that was asked; whoever would
    # hide what their life has cost could as well state 0.
    if receipt.privacy_unit != "patient" or receipt.delta is None:
        return True
    if spent is None or clip is None or sigma is None:
        return True
    # A site's policy may be stricter than the plan, never laxer. 1e-6: sums round.
    return (
        not 0 <= spent <= epsilon * (1 + 1e-6)
        or clip > max_grad_norm * (1 + 1e-6)
        or not 0 < sigma <= MAXIMUM_NOISE_MULTIPLIER
        or not 0 < receipt.delta < MAXIMUM_DELTA
    )


def _finite(array: NDArray[np.float32]) -> bool:
    # The sum is finite only if all is; no boolean array as large as the tensor.
    return math.isfinite(float(np.sum(np.abs(array), dtype=np.float64)))
