"""What may leave a site: the rules of the outbox, as functions of what it found out by itself.

They repeat what `client.round_handler` and its parts see to already, and share no code with them
but the policy and the ledger's lines: a mistake there must not become a leak.

1. A refusal is a code of the closed table, and comes alone.
2. Anything else answers a plan that a coordinator signed, that the policy allows at this moment,
   and that the site remembers having accepted.
3. An update is the trainable float32 tensors of the plan's scope: no more, no fewer, no buffer,
   no layer that stays at the site, each of the base's shape and finite, bound to the plan, with a
   receipt that names its digest; and the ledger has a reservation for it that was trained on.
   Where the round was asked for before, under another nonce, it is the very update that was
   trained then, and that left if one
   did: one reservation, one update.
4. A receipt says what policy and ledger say; its epsilons are not below the ledger's.
5. Holdout counts leave only if the policy releases them, only for a plan that was accepted for
   scoring, of the recipe's classes, no cell but 0 below the policy's minimum, nor the rest of a
   class outside its subgroups; of other statistics only those that the policy lists.
6. A forecast answers a preflight, and never tells less than has been spent already. That nothing
   could be scored is the policy's word alone where it releases no counts; where it does, it is
   said no oftener in a day than the holdout may be scored.
7. With it leaves of a site's status what the policy lists, in bands, and not below its smallest
   cell, so often a day as it says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from client.policy import SitePolicy
from client.privacy.accounting import epsilon, public_patients
from client.privacy.ledger_lines import LedgerLine, rounds_without_privacy, spends
from common.compression import decode
from common.errors import PrivacyRefused, UpdateRefused
from common.evaluation import Counts, SiteEvaluation
from common.plan import RoundPlan
from common.records import NEW_CASE_BANDS, Forecast, Receipt, SiteReply, SiteStatus
from common.refusals import SITE_REFUSALS
from common.update import ModelUpdate, UpdateBinding

ROUNDING = 1e-9
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Memory:
    """What the site remembers of a plan that it accepted."""

    campaign: str
    round: int
    purpose: str
    scores: bool


@dataclass(frozen=True)
class LeftUpdate:
    """An update that left in answer to an earlier request for the same round."""

    nonce: str
    digest: str


@dataclass(frozen=True)
class Grounds:
    """On what a reply is judged.

    ``lines`` are the ledger's now, ``lines_before`` as the request came, ``elapsed`` seconds ago;
    ``trainable`` are the shapes of the tensors that the plan lets move; ``left_before`` is
    the update that left already for the same round;
    ``preflights`` were accepted in the last 24 hours, this one included.
    """

    site: str
    plan: RoundPlan
    policy: SitePolicy
    memory: Memory | None
    lines: Sequence[LedgerLine]
    lines_before: Sequence[LedgerLine]
    trainable: Shapes
    elapsed: float
    left_before: LeftUpdate | None = None
    preflights: int = 0


def check_refusal(reply: SiteReply) -> None:
    """Hold a refusal against rule 1; raises as `check_reply`."""
    _hold(reply.refusal is not None and reply.refusal.code in SITE_REFUSALS, "refusal-code")
    alone = (reply.receipt, reply.update, reply.evaluation, reply.forecast)
    _hold(alone == (None, None, None, None), "refusal-alone")


def check_reply(reply: SiteReply, grounds: Grounds) -> None:
    """Hold a reply that is no refusal against rules 2 to 7.

    Raises
    ------
    PrivacyRefused
        With code ``outbox-refused``; the text names the rule, for the site's own log.
    """
    plan, memory = grounds.plan, grounds.memory
    _hold(reply.refusal is None, "refusal-alone")
    _hold(reply.site == grounds.site, "site-name")
    _hold(all(_well_typed(d) for d in (reply.receipt, reply.evaluation, reply.forecast)), "types")
    same = (plan.campaign, plan.round, plan.purpose)
    accepted = memory is not None and (memory.campaign, memory.round, memory.purpose) == same
    _hold(accepted, "plan-not-accepted")
    if reply.forecast is not None:
        _hold((reply.receipt, reply.update, reply.evaluation) == (None,) * 3, "forecast-alone")
        _check_forecast(reply.forecast, grounds)
        return
    _hold(plan.purpose != "preflight", "forecast-missing")
    _hold((reply.update is not None) == (plan.purpose == "train"), "update-unasked")
    own = _check_update(reply.update, grounds) if reply.update is not None else None
    _check_receipt(reply, grounds, own)
    if reply.evaluation is not None:
        _hold(memory is not None and memory.scores, "evaluation-unasked")
        _check_evaluation(reply.evaluation, grounds)


def _check_update(update: ModelUpdate, grounds: Grounds) -> LedgerLine:
    plan = grounds.plan
    bound = UpdateBinding(plan.campaign, plan.round, plan.nonce, plan.base_digest)
    _hold(update.binding == bound, "update-binding")
    _hold(set(update.tensors) == set(grounds.trainable), "update-names")
    for name, array in update.tensors.items():
        _hold(array.dtype == np.float32, "update-dtype")
        _hold(array.shape == grounds.trainable[name], "update-shape")
        _hold(_finite(array), "update-not-finite")
    _check_packed(update, grounds)
    own = reserved(grounds.lines, plan)
    before = grounds.left_before
    if before is not None:
        first = ModelUpdate(replace(bound, nonce=before.nonce), update.tensors)
        _hold(first.digest == before.digest, "update-repeated")
    _hold([line.kind for line in own] == ["reserve", "outcome"], "update-unreserved")
    _hold(own[1].outcome == "trained", "update-untrained")
    _hold((own[0].campaign, own[0].round) == (plan.campaign, plan.round), "update-unreserved")
    _hold((own[0].spend is not None) == (plan.privacy.epsilon is not None), "update-unnoised")
    return own[0]


def _check_packed(update: ModelUpdate, grounds: Grounds) -> None:
    """Hold what leaves compressed against the update itself, and against the plan's wish."""
    if update.packed is None:
        return
    _hold(update.packed.kind == grounds.plan.recipe.federation.compression, "update-compression")
    try:
        said = decode(update.packed, grounds.trainable)
    except UpdateRefused as error:
        raise withheld("update-compression") from error
    same = all(np.array_equal(said[name], array) for name, array in update.tensors.items())
    _hold(same, "update-compression")


def reserved(lines: Sequence[LedgerLine], plan: RoundPlan) -> list[LedgerLine]:
    """Return the lines of a plan's own nonce, or else of the one its round was trained for."""
    own = [line for line in lines if line.nonce == plan.nonce]
    asked = (plan.campaign, plan.round)
    return own or [line for line in lines if (line.campaign, line.round) == asked]


def _check_receipt(reply: SiteReply, grounds: Grounds, own: LedgerLine | None) -> None:
    plan, receipt = grounds.plan, reply.receipt
    if receipt is None:
        raise withheld("receipt-missing")
    _hold(receipt.site == grounds.site, "site-name")
    asked = (plan.campaign, plan.round, plan.nonce, plan.base_digest)
    said = (receipt.campaign, receipt.round, receipt.nonce, receipt.base_digest)
    _hold(said == asked, "receipt-binding")
    digest = reply.update.digest if reply.update is not None else None
    _hold(receipt.update_digest == digest, "receipt-digest")
    _hold(receipt.sampling_rate == plan.training.sampling_rate, "receipt-sampling")
    _hold(receipt.steps == (own.steps if own is not None else 0), "receipt-steps")
    # A time that cannot be true could say something else.
    possible = 0 <= receipt.seconds <= grounds.elapsed + 10
    _hold(possible and receipt.seconds == round(receipt.seconds, -1), "receipt-seconds")
    _hold(receipt.evaluation_outside_guarantee, "receipt-evaluation")
    told = grounds.policy.declared_patients or 0
    _hold(reply.update is not None or receipt.public_patients == told, "receipt-patients")
    if plan.privacy.epsilon is None:
        _check_bare_receipt(receipt, grounds, own)
    else:
        _check_private_receipt(receipt, grounds, own)


def _check_bare_receipt(receipt: Receipt, grounds: Grounds, own: LedgerLine | None) -> None:
    _hold(receipt.privacy_unit == "none", "receipt-unit")
    figures = (receipt.epsilon_campaign, receipt.epsilon_life, receipt.delta)
    noise = (receipt.max_grad_norm, receipt.noise_multiplier)
    _hold((*figures, *noise) == (None,) * 5, "receipt-epsilon")
    if own is None:  # it only scored, which no policy needs to allow without privacy
        return
    _hold(grounds.policy.allow_without_privacy, "privacy-required")
    told, declared = receipt.public_patients, grounds.policy.declared_patients
    _hold(told == (declared or public_patients(told)), "receipt-patients")


def _check_private_receipt(receipt: Receipt, grounds: Grounds, own: LedgerLine | None) -> None:
    policy = grounds.policy
    _hold(receipt.privacy_unit == "patient", "receipt-unit")
    _hold(receipt.delta == policy.delta, "receipt-delta")
    if own is not None:
        _hold(receipt.public_patients == policy.declared_patients, "receipt-patients")
    noise = (own.max_grad_norm, own.noise_multiplier) if own is not None else (None, None)
    _hold((receipt.max_grad_norm, receipt.noise_multiplier) == noise, "receipt-noise")
    if own is not None:
        _hold(own.noise_multiplier >= policy.min_noise_multiplier, "receipt-noise")
        _hold(own.max_grad_norm <= policy.max_grad_norm, "receipt-noise")
        # What another process has reserved since is not this receipt's to tell.
        spent = [line for line in grounds.lines if line.sequence <= own.sequence]
    else:
        spent = list(grounds.lines_before)
    campaign = epsilon(spends(spent, receipt.campaign), policy.delta)
    _hold(_covers(receipt.epsilon_campaign, campaign), "receipt-epsilon")
    if rounds_without_privacy(spent):
        _hold(receipt.epsilon_life is None, "receipt-epsilon")
    elif receipt.epsilon_life is not None or not rounds_without_privacy(grounds.lines):
        _hold(
            _covers(receipt.epsilon_life, epsilon(spends(spent), policy.delta)), "receipt-epsilon"
        )


def _check_evaluation(evaluation: SiteEvaluation, grounds: Grounds) -> None:
    policy = grounds.policy
    _hold(policy.release_evaluation, "evaluation-not-released")
    _hold(evaluation.classes == grounds.plan.recipe.classes, "evaluation-classes")
    _hold(evaluation.minimum_cell >= policy.minimum_cell, "evaluation-cell")
    released = policy.release_statistics
    _hold(evaluation.decision is None or "decision" in released, "evaluation-statistic")
    _hold(evaluation.calibration is None or "calibration" in released, "evaluation-statistic")
    _hold(not evaluation.subgroups or "subgroups" in released, "evaluation-statistic")
    _check_cells(evaluation, policy.minimum_cell)
    for part in evaluation.subgroups:
        counts = part.counts
        _hold(counts.classes == evaluation.classes, "evaluation-classes")
        _hold(counts.decision is None or "decision" in released, "evaluation-statistic")
        # Right and wrong answers of a subgroup could be held against those of the whole.
        _hold(counts.calibration is None, "evaluation-statistic")
        _hold(not any(count for row in counts.confusion for count in row), "evaluation-cell")
        _check_cells(counts, policy.minimum_cell)
    _check_rest(evaluation, policy.minimum_cell)


def _check_cells(counts: Counts, minimum: int) -> None:
    cells = [*counts.unresolved, *(c for row in counts.confusion for c in row)]
    histograms = [*counts.positives, *counts.negatives]
    if counts.decision is not None:
        histograms += [counts.decision.positives, counts.decision.negatives]
    if counts.calibration is not None:
        histograms += [counts.calibration.right, counts.calibration.wrong]
    for histogram in histograms:
        cells += histogram.counts
    _hold(all(c == 0 or c >= minimum for c in cells), "evaluation-cell")


def _check_rest(evaluation: SiteEvaluation, minimum: int) -> None:
    for axis in {part.axis for part in evaluation.subgroups}:
        parts = [part.counts for part in evaluation.subgroups if part.axis == axis]
        for index, whole in enumerate(evaluation.positives):
            rest = whole.total - sum(part.positives[index].total for part in parts)
            _hold(rest == 0 or rest >= minimum, "evaluation-rest")


def _check_forecast(forecast: Forecast, grounds: Grounds) -> None:
    plan, policy = grounds.plan, grounds.policy
    _hold(plan.purpose == "preflight", "forecast-unasked")
    asked = (grounds.site, plan.campaign, plan.nonce, plan.rounds - plan.round + 1)
    said = (forecast.site, forecast.campaign, forecast.nonce, forecast.rounds)
    _hold(said == asked, "forecast-binding")
    _hold(forecast.code is None or forecast.code in SITE_REFUSALS, "forecast-code")
    _hold(forecast.affordable == (forecast.code is None), "forecast-code")
    private = plan.privacy.epsilon is not None
    _hold(forecast.delta == (policy.delta if private else None), "forecast-delta")
    before = epsilon(spends(grounds.lines_before), policy.delta) if private else 0.0
    told = forecast.epsilon_life
    _hold(told is None or _covers(told, before), "forecast-epsilon")
    if not policy.scores_holdout:
        _hold(not forecast.scores, "forecast-scores")
    elif not forecast.scores:
        _hold(0 < grounds.preflights <= policy.evaluations_per_day, "forecast-scores")
    if forecast.status is not None:
        _check_status(forecast.status, grounds)


def _check_status(status: SiteStatus, grounds: Grounds) -> None:
    policy, told = grounds.policy, status.new_cases
    _hold(0 < grounds.preflights <= policy.status_per_day, "status-too-often")
    _hold(told is None or "new-cases" in policy.release_status, "status-unlisted")
    _hold(status.drift is None or "drift" in policy.release_status, "status-unlisted")
    answered = status.prediction_drift
    _hold(answered is None or "prediction-drift" in policy.release_status, "status-unlisted")
    _hold(all(level in (None, 0, 1, 2) for level in (status.drift, answered)), "status-band")
    banded = told in NEW_CASE_BANDS and (told == 0 or told >= policy.minimum_cell)
    _hold(told is None or banded, "status-band")
    _hold((told, status.drift, answered) != (None, None, None), "status-empty")


def withheld(rule: str) -> PrivacyRefused:
    """Return the error for a reply that breaks a rule; ``rule`` stays at the site."""
    return PrivacyRefused(
        f"The outbox held a reply back ({rule}).",
        meaning="The site's own code made something that must not leave.",
        action="Report it with this line of the log; nothing of the reply has left.",
        code="outbox-refused",
    )


def _hold(kept: bool, rule: str) -> None:
    if not kept:
        raise withheld(rule)


def _well_typed(document: BaseModel | None) -> bool:
    """Tell whether a document's fields hold what their types say: copies are made unvalidated."""
    if document is None:
        return True
    try:
        whole = type(document).model_validate(document.model_dump(warnings=False), strict=True)
    except ValidationError:
        return False
    return whole == document


def _covers(told: float | None, spent: float) -> bool:
    return told is not None and told >= spent * (1 - ROUNDING)


def _finite(array: NDArray[np.float32]) -> bool:
    # The sum is finite only if all is; no boolean array as large as the tensor.
    return bool(np.isfinite(np.sum(np.abs(array), dtype=np.float64)))
