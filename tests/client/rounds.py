"""Plans, sites and images for the tests of rounds."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Literal

import numpy as np
import tomli_w
from numpy.typing import NDArray

from client.cases.store import CaseStore
from client.policy import SitePolicy
from client.settings import SiteSettings
from client.site_folder import create_site_folder
from common.model import build_model, state_tensors
from common.plan import PrivacyRequest, Purpose, RoundPlan, SignedPlan, sign_plan
from common.recipe import Augmentation, DecisionSpec, ImageSpec, LocalTraining, ModelSpec, Recipe
from common.signing import SigningKey
from common.update import Tensors, tensors_digest
from tests.client.pictures import picture

TOY = Recipe(
    name="toy",
    title="Bright squares",
    images="drawn",
    classes=("dark", "bright"),
    image=ImageSpec(size=32),
    model=ModelSpec(architecture="test_resnet"),
    augmentation=Augmentation(horizontal_flip=True),
    decision=DecisionSpec(positive_classes=("bright",)),
)
KEY = SigningKey.generate()


def make_plan(
    *,
    purpose: Purpose = "train",
    campaign: str = "campaign",
    round: int = 1,
    rounds: int = 3,
    epsilon: float | None = 8.0,
    base: Tensors | None = None,
    steps: int = 2,
    rate: float = 0.3,
    rate_of_learning: float = 0.1,
    nonce: str | None = None,
    recipe: Recipe = TOY,
    clip: float = 1.0,
    multiplicity: int = 1,
    steps_before: int = 0,
    evaluate: bool = True,
    now: int | None = None,
) -> RoundPlan:
    now = int(time.time()) if now is None else now
    return RoundPlan(
        purpose=purpose,
        campaign=campaign,
        round=round,
        rounds=rounds,
        nonce=nonce or secrets.token_hex(32),
        base_digest=tensors_digest(base if base is not None else {}),
        recipe=recipe,
        training=LocalTraining(
            local_steps=steps, sampling_rate=rate, learning_rate=rate_of_learning
        ),
        privacy=PrivacyRequest(
            epsilon=epsilon, max_grad_norm=clip, augmentation_multiplicity=multiplicity
        ),
        evaluate=evaluate,
        steps_before=steps_before,
        issued_at=now,
        expires_at=now + 600,
    )


def no_test(*_: object, **__: object) -> None:
    """Stands in for the gradient self-test, which has tests of its own."""


def signed(plan: RoundPlan, key: SigningKey = KEY) -> SignedPlan:
    return sign_plan(plan, key)


def base_tensors(recipe: Recipe = TOY) -> dict[str, NDArray[np.generic]]:
    return state_tensors(build_model(recipe, pretrained=False))


def make_site(
    folder: Path,
    *,
    patients: int = 24,
    holdout: int = 8,
    database_url: str | None = None,
    name: str = "north",
    **policy: object,
) -> SiteSettings:
    fields = {
        "allowed_recipes": ("toy",),
        "release_evaluation": True,
        "minimum_cell": 2,
        "max_grad_norm": 2.0,
        "declared_patients": 25,
        **policy,
    }
    settings = create_site_folder(
        folder,
        name=name,
        task="toy",
        plan_keys=[KEY.verify_key.pem()],
        policy=SitePolicy.model_validate(fields),
        recipe=TOY,
        settings={"device": "cpu"} | ({"database_url": database_url} if database_url else {}),
    )
    fill(settings, patients, "train")
    fill(settings, holdout, "holdout")
    return settings


def change_policy(site: SiteSettings, **fields: object) -> None:
    policy = SitePolicy.read(site.policy).model_dump(mode="json", exclude_none=True) | fields
    site.policy.write_text(tomli_w.dumps(policy))


def fill(settings: SiteSettings, patients: int, split: Literal["train", "holdout"]) -> None:
    generator = np.random.default_rng(patients + 1000 * (split == "holdout"))
    store = CaseStore.open(settings)
    for number in range(patients):
        label = number % 2
        store.add(
            picture(label, generator),
            task="toy",
            patient_id=f"{split}-{number}",
            label=TOY.classes[label],
            source="test",
            split=split,
        )
    store.close()
