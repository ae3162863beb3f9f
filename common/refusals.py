"""Every code with which a site may refuse, and what it tells the coordinator's operator.

The table is closed: an error whose code is not in it leaves the site as ``internal-error``, so
that no text, and no new code with something of the site in it, can slip out.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

INTERNAL_ERROR = "internal-error"
OUT_OF_MEMORY = "out-of-memory"

_PLAN = {
    "request-malformed": "The request broke the wire format: are both ends of one version?",
    "request-too-large": "The request was larger than a site accepts.",
    "plan-too-large": "The plan was larger than 64 KiB.",
    "plan-signature": "No key in the site's trust/plan-keys signed the plan: send it yours.",
    "plan-malformed": "The signed plan broke the schema: are both ends of one version?",
    "plan-expired": "The plan came too late, or a clock is wrong.",
    "plan-not-yet-valid": "The plan is from the site's future: a clock is wrong.",
    "plan-replayed": "The site answered this plan, or this round, before.",
    "plan-out-of-order": "The site has accepted a later round of this campaign.",
    "base-unknown": "The site does not hold the model that a step starts from: send it whole.",
    "correction-mismatch": "The correction that came, or did not, is not the one of the plan.",
    "correction-malformed": "A correction had other tensors than asked for, or was not finite.",
    "correction-norm": "A correction would have moved the model by more than ten times its norm.",
    "plan-base-mismatch": "The model that came is not the one that the plan names.",
}
_POLICY = {
    "site-paused": "The hospital has paused its site.",
    "site-closed": "The plan came outside the site's opening hours.",
    "rounds-used-up": "The site accepts no more training rounds today.",
    "evaluations-used-up": "The site scores its holdout no more today.",
    "recipe-not-allowed": "The site's policy does not name this recipe.",
    "compression-not-allowed": "The site's policy does not allow this compression of updates.",
    "recipe-changed": "The recipe differs from the site's own copy of it: agree on one.",
    "privacy-required": "The site wants differential privacy: give the campaign an epsilon.",
    "patients-undeclared": "The site has not declared a number of patients yet.",
    "evaluation-not-released": "The site's policy releases no evaluation.",
    "policy-missing": "The site has no policy, so it answers nothing.",
    "policy-malformed": "The site's policy breaks a rule, so it answers nothing.",
    "outbox-refused": "The site's outbox held its own answer back: tell the hospital.",
}
_PRIVACY = {
    "budget-exhausted": "The site's privacy budget does not cover the rest of the campaign.",
    "delta-too-large": "The site's delta is too large for its number of patients.",
    "delta-changed": "The site's delta is not the one that its ledger was begun with.",
    "privacy-changed": "The campaign asks for privacy in some rounds and for none in others.",
    "ledger-damaged": "The site's privacy ledger was changed or has lost lines.",
    "self-test-failed": "The site's software does not compute true per-patient gradients.",
    "batch-norm": "The network normalises each patient by others: choose another.",
    "mixes-patients": "MixUp, CutMix or class balancing was asked for together with privacy.",
}
_WORK = {
    "no-cases": "The site has no confirmed training case.",
    "no-holdout": "The site holds no patient out.",
    "model": "The network could not be used at the site.",
    "model-unknown": "The site's software does not know this network.",
    "model-build": "The network could not be built at the site.",
    "model-mismatch": "The tensors that came do not fit the recipe's network.",
    "model-not-finite": "The model that came is not finite.",
    "model-unsupported": "The network cannot be trained with privacy.",
    "model-padding": "The network cannot be trained with privacy (padding).",
    "model-tied": "The network cannot be trained with privacy (shared layers).",
    "update-not-finite": "Training diverged at the site: lower the learning rate.",
    "update-shape": "Training gave tensors unlike the base model's.",
    "evaluation-not-finite": "The model's answers at the site are no probabilities.",
    "prediction-not-finite": "The model's answers at the site are not finite.",
}
_MACHINE = {
    "configuration": "The site's settings are wrong.",
    "recipe": "The site's own copy of the recipe breaks a rule.",
    "device-absent": "The device that the site's settings name is not there.",
    "device-memory": "The network does not fit into the site's memory setting.",
    OUT_OF_MEMORY: "The site ran out of memory.",
    "store": "The site's database or disk failed.",
    "disk-full": "The site's disk is full.",
    INTERNAL_ERROR: "Something failed inside the site; its log says what.",
}

SITE_REFUSALS: Mapping[str, str] = MappingProxyType(_PLAN | _POLICY | _PRIVACY | _WORK | _MACHINE)


def outward_code(code: str) -> str:
    """Return a code as it may leave a site: itself if it is in the table."""
    return code if code in SITE_REFUSALS else INTERNAL_ERROR
