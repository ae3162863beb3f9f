"""The site's own policy, ``policy.toml``: it has the last word over every round plan."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from client.pause import is_paused, switch_of
from client.releases.policy import ReleasePolicy
from common.compression import COMPRESSIONS, Compression
from common.errors import PlanRefused, PrivacyRefused
from common.evaluation_counts import Statistic
from common.plan import RoundPlan
from common.recipe import SMALLEST_CLIP, Recipe
from common.records import MAXIMUM_DELTA, MAXIMUM_NOISE_MULTIPLIER

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_RECIPE = r"^[a-z0-9][a-z0-9-]{0,62}(@[0-9a-f]{64})?$"
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]"
_HOURS = f"^{_TIME}-{_TIME}$"


class SitePolicy(BaseModel):
    """What hospital IT allows; a field that is not in the file has its strictest sensible value.

    Attributes
    ----------
    allowed_recipes : tuple of str
        Recipes that the site trains and evaluates: a name means the site's own copy of that
        recipe, of which a plan may choose network, image size and what is the coordinator's
        side; ``name@digest`` means that very recipe (`common.recipe.Recipe.digest`). Empty: none.
    paused : bool
        Every plan is refused. `read` says so too while the pause switch (`client.pause`) is set.
    open_hours : str or None
        ``HH:MM-HH:MM`` in UTC, over midnight too: plans outside are refused. None: always open.
    rounds_per_day, evaluations_per_day : int
        How many training plans are accepted, and how often the holdout is scored, in 24 hours.
    declared_patients : int or None
        The number of training patients as the coordinator is told it and as updates are divided
        by. It is public: choose a round number near the true one, and seldom change it. None:
        no training with privacy, since a counted number would tell about patients.
    allow_without_privacy : bool
        Whether studies without differential privacy may run. Their updates lie outside every
        guarantee that the ledger can give.
    epsilon_life, epsilon_campaign : float
        Upper bounds of epsilon over all that the site ever does, and for one campaign.
    epsilon_round : float or None
        The same for one round by itself.
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
    allowed_compression : tuple of str
        In which forms an update may leave: ``none``, ``fp16``, ``int8``, ``top-k``.
    release_statistics : tuple of str
        What may leave beside the counts by class: ``decision`` (scores of the positive classes,
        for the operating threshold), ``calibration`` (confidence of right and of wrong answers),
        ``subgroups`` (the counts by age band and by sex).
    release_status : tuple of str
        What is told with the answer to a preflight, for the coordinator's triggers: ``new-cases``
        (a band of newly confirmed patients), ``drift`` (none, some, much), ``prediction-drift``
        (the same of the model's answers). Nothing by default.
    status_per_day : int
        How many preflights of 24 hours are told that.
    releases : ReleasePolicy
        The ``[releases]`` table: which releases answer here (`client.releases.policy`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    allowed_recipes: tuple[Annotated[str, Field(pattern=_RECIPE)], ...] = ()
    paused: bool = False
    open_hours: Annotated[str, Field(pattern=_HOURS)] | None = None
    rounds_per_day: Annotated[int, Field(ge=0)] = 1000
    evaluations_per_day: Annotated[int, Field(ge=0)] = 100
    declared_patients: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    allow_without_privacy: bool = False
    epsilon_life: Positive = 16.0
    epsilon_campaign: Positive = 8.0
    epsilon_round: Positive | None = None
    delta: Annotated[float, Field(gt=0, lt=MAXIMUM_DELTA)] = 1e-5
    max_grad_norm: Annotated[float, Field(ge=SMALLEST_CLIP, allow_inf_nan=False)] = 10.0
    min_noise_multiplier: Annotated[float, Field(ge=0.3, le=MAXIMUM_NOISE_MULTIPLIER)] = 0.5
    release_evaluation: bool = False
    minimum_cell: Annotated[int, Field(ge=1)] = 10
    allowed_compression: tuple[Compression, ...] = COMPRESSIONS
    release_statistics: tuple[Statistic, ...] = ("decision", "calibration")
    release_status: tuple[Literal["new-cases", "drift", "prediction-drift"], ...] = ()
    status_per_day: Annotated[int, Field(ge=0)] = 4
    releases: ReleasePolicy = ReleasePolicy()

    @classmethod
    def read(cls, path: Path) -> SitePolicy:
        """Read a policy file, and whether the pause switch beside it is set.

        Raises
        ------
        PrivacyRefused
            With code ``policy-missing`` or ``policy-malformed``: without a policy nothing runs.
        """
        try:
            text = path.read_text("utf-8")
        except FileNotFoundError as error:
            raise PrivacyRefused(
                f"There is no policy {path}.",
                meaning="Without a policy the site answers no plan.",
                action="Write policy.toml as the start-up kit's example shows.",
                code="policy-missing",
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise _malformed(str(path), str(error)) from error
        policy = cls.parse(text, origin=str(path))
        return policy.model_copy(update={"paused": policy.paused or is_paused(switch_of(path))})

    @classmethod
    def parse(cls, text: str, *, origin: str) -> SitePolicy:
        """Read a policy's TOML; PrivacyRefused (code ``policy-malformed``) names the field."""
        try:
            return cls.model_validate(tomllib.loads(text))
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors()
            )
            raise _malformed(origin, faults) from error
        except tomllib.TOMLDecodeError as error:
            raise _malformed(origin, str(error)) from error

    @property
    def scores_holdout(self) -> bool:
        """Whether anything that a model answers on the holdout may ever leave."""
        return self.release_evaluation and self.evaluations_per_day > 0

    def check(self, plan: RoundPlan, *, own: Recipe | None, now: float) -> None:
        """Hold a verified plan against the policy.

        Parameters
        ----------
        plan : RoundPlan
            Verified.
        own : Recipe or None
            The site's own copy of the recipe that the plan names, if it has one.
        now : float
            UTC seconds since 1970.

        Raises
        ------
        PlanRefused
            With code ``site-paused``, ``site-closed``, ``recipe-not-allowed`` or
            ``recipe-changed``.
        PrivacyRefused
            With code ``privacy-required``, ``patients-undeclared``, ``delta-too-large`` or
            ``evaluation-not-released``.
        """
        if self.paused:
            raise PlanRefused(
                "The site is paused by its policy.",
                action="`wardround site resume`, or paused = false in policy.toml, to go on.",
                code="site-paused",
            )
        if not self._is_open(now):
            raise PlanRefused(
                f"The plan came outside the site's opening hours ({self.open_hours} UTC).",
                action="Change open_hours in policy.toml, or wait.",
                code="site-closed",
            )
        self._check_recipe(plan.recipe, own)
        if plan.purpose == "evaluate" and not self.release_evaluation:
            raise PrivacyRefused(
                "The policy releases no evaluation.",
                action="Set release_evaluation = true in policy.toml to allow it.",
                code="evaluation-not-released",
            )
        if plan.purpose != "evaluate":
            self._check_training(plan)

    def _is_open(self, now: float) -> bool:
        if self.open_hours is None:
            return True
        opens, closes = self.open_hours.split("-")
        time = datetime.fromtimestamp(now, UTC).strftime("%H:%M")
        if opens <= closes:
            return opens <= time < closes
        return time >= opens or time < closes

    def _check_recipe(self, asked: Recipe, own: Recipe | None) -> None:
        entries = [e for e in self.allowed_recipes if e.partition("@")[0] == asked.name]
        if not entries:
            raise PlanRefused(
                "The policy does not allow this recipe.",
                action="Add its name to allowed_recipes in policy.toml.",
                code="recipe-not-allowed",
            )
        if f"{asked.name}@{asked.digest}" in entries:
            return
        if asked.name not in entries or own is None or not own.allows(asked):
            raise PlanRefused(
                "The plan's recipe is not the one that the site knows by this name.",
                meaning="Classes, image region, loss or network would be others than agreed.",
                action="Compare it with recipes/ in the site's folder; allow it by its digest "
                "in policy.toml if it is meant so.",
                code="recipe-changed",
            )

    def _check_training(self, plan: RoundPlan) -> None:
        if plan.recipe.federation.compression not in self.allowed_compression:
            raise PlanRefused(
                "The plan asks for an update in a form that the policy does not allow.",
                action="Add it to allowed_compression in policy.toml.",
                code="compression-not-allowed",
            )
        if plan.privacy.epsilon is None:
            if not self.allow_without_privacy:
                raise PrivacyRefused(
                    "The plan asks for training without differential privacy.",
                    meaning="The update would say more about single patients than the policy "
                    "allows.",
                    action="Ask the coordinator for a plan with an epsilon.",
                    code="privacy-required",
                )
        elif self.declared_patients is None:
            raise PrivacyRefused(
                "The policy declares no number of training patients.",
                meaning="A counted one would tell the coordinator about patients.",
                action="Set declared_patients in policy.toml to a round number near the true one.",
                code="patients-undeclared",
            )
        elif self.delta >= 1 / self.declared_patients:
            raise PrivacyRefused(
                "The policy's delta is not below 1 / declared_patients.",
                meaning="It would allow one patient to be given away whole.",
                action="Lower delta before the ledger's first line.",
                code="delta-too-large",
            )


def _malformed(path: str, faults: str) -> PrivacyRefused:
    return PrivacyRefused(
        f"The policy {path} breaks a rule: {faults}.",
        meaning="Without a policy the site answers no plan.",
        action="Correct the field.",
        code="policy-malformed",
    )
