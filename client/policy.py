"""The site's own policy, ``policy.toml``: it has the last word over every round plan."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.errors import PlanRefused, PrivacyRefused
from common.plan import RoundPlan

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class SitePolicy(BaseModel):
    """What hospital IT allows; a field that is not in the file has its strictest sensible value.

    Attributes
    ----------
    allowed_recipes : tuple of str
        Names of the recipes that the site trains and evaluates. Empty: none.
    paused : bool
        The pause button: every plan is refused.
    allow_without_privacy : bool
        Whether studies without differential privacy may run. Their updates lie outside every
        guarantee that the ledger can give.
    epsilon_life, epsilon_campaign : float
        Upper bounds of epsilon over all that the site ever does, and for one campaign.
    delta : float
        Fixed for the site's life; must be below 1 / (number of training patients).
    max_grad_norm : float
        The largest clip C that a plan may ask for; a larger one is lowered to it.
    min_noise_multiplier : float
        Never less noise than this, however much epsilon is left.
    release_evaluation : bool
        Whether counts over holdout patients may leave. They are not noised.
    minimum_cell : int
        The smallest count over holdout patients that may leave.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    allowed_recipes: tuple[str, ...] = ()
    paused: bool = False
    allow_without_privacy: bool = False
    epsilon_life: Positive = 16.0
    epsilon_campaign: Positive = 8.0
    delta: Annotated[float, Field(gt=0, lt=1e-3)] = 1e-5
    max_grad_norm: Positive = 10.0
    min_noise_multiplier: Annotated[float, Field(ge=0.3, le=100)] = 0.5
    release_evaluation: bool = False
    minimum_cell: Annotated[int, Field(ge=1)] = 10

    @classmethod
    def read(cls, path: Path) -> SitePolicy:
        """Read a policy file.

        Raises
        ------
        PrivacyRefused
            With code ``policy-missing`` or ``policy-malformed``: without a policy nothing runs.
        """
        try:
            data = tomllib.loads(path.read_text("utf-8"))
            return cls.model_validate(data)
        except FileNotFoundError as error:
            raise PrivacyRefused(
                f"There is no policy {path}.",
                meaning="Without a policy the site answers no plan.",
                action="Write policy.toml as the start-up kit's example shows.",
                code="policy-missing",
            ) from error
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors()
            )
            raise _malformed(path, faults) from error
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise _malformed(path, str(error)) from error

    def check(self, plan: RoundPlan) -> None:
        """Hold a verified plan against the policy.

        Raises
        ------
        PlanRefused
            With code ``site-paused`` or ``recipe-not-allowed``.
        PrivacyRefused
            With code ``privacy-required`` or ``evaluation-not-released``.
        """
        if self.paused:
            raise PlanRefused(
                "The site is paused by its policy.",
                action="Set paused = false in policy.toml to go on.",
                code="site-paused",
            )
        if plan.recipe.name not in self.allowed_recipes:
            raise PlanRefused(
                "The policy does not allow this recipe.",
                action="Add its name to allowed_recipes in policy.toml.",
                code="recipe-not-allowed",
            )
        if plan.purpose == "evaluate" and not self.release_evaluation:
            raise PrivacyRefused(
                "The policy releases no evaluation.",
                action="Set release_evaluation = true in policy.toml to allow it.",
                code="evaluation-not-released",
            )
        without = plan.purpose == "train" and plan.privacy.epsilon is None
        if without and not self.allow_without_privacy:
            raise PrivacyRefused(
                "The plan asks for training without differential privacy.",
                meaning="The update would say more about single patients than the policy allows.",
                action="Ask the coordinator for a plan with an epsilon.",
                code="privacy-required",
            )


def _malformed(path: Path, faults: str) -> PrivacyRefused:
    return PrivacyRefused(
        f"The policy {path} breaks a rule: {faults}.",
        meaning="Without a policy the site answers no plan.",
        action="Correct the field.",
        code="policy-malformed",
    )
