"""Round plans for the tests."""

from __future__ import annotations

from common.plan import PrivacyRequest, RoundPlan
from common.recipe import LocalTraining
from common.update import Tensors, tensors_digest
from tests.fakes import first_model, toy_recipe

ISSUED = 1_800_000_000


def make_plan(
    *, base: Tensors | None = None, epsilon: float | None = 8.0, **changes: object
) -> RoundPlan:
    fields: dict[str, object] = {
        "purpose": "train",
        "campaign": "campaign",
        "round": 1,
        "rounds": 3,
        "nonce": "ab" * 32,
        "base_digest": tensors_digest(first_model() if base is None else base),
        "recipe": toy_recipe(),
        "training": LocalTraining(local_steps=2, learning_rate=1.0),
        "privacy": PrivacyRequest(epsilon=epsilon, max_grad_norm=1.0),
        "issued_at": ISSUED,
        "expires_at": ISSUED + 600,
    }
    return RoundPlan.model_validate(fields | changes)
