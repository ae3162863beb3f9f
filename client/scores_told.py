"""Whether this site could score a candidate: what its policy lets leave of its holdout.

Said before a campaign begins, by the code that decides at its end, so that no privacy is spent on
a model that nobody could judge. Where the policy releases holdout counts, it tells what their
absence would tell, and no oftener in a day; where it releases none, no case has a say in it.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.cases.store import CaseStore
from client.plan_memory import PlanMemory
from client.policy import SitePolicy
from client.settings import SiteSettings
from client.training.dataset import patient_images
from client.training.evaluation import case_labels
from client.training.pixel_cache import CachedPixels
from common.evaluation import told_cases
from common.plan import RoundPlan
from common.recipe import Recipe


@dataclass(frozen=True)
class HoldoutCases:
    """The holdout's cases (a patient with one label), (N,): the class of each, and if it counts."""

    labels: NDArray[np.int64]
    told: NDArray[np.bool_]

    def untold_classes(self, recipe: Recipe) -> tuple[str, ...]:
        """Return the classes that have cases, but too few for anything of them to leave."""
        few = set(self.labels[~self.told].tolist())
        return tuple(name for index, name in enumerate(recipe.classes) if index in few)


def holdout_cases(store: CaseStore, recipe: Recipe, policy: SitePolicy) -> HoldoutCases:
    """Count the holdout as an evaluation would; no image is read.

    Raises
    ------
    StoreError
        If the case store cannot be read.
    """
    cases = store.holdout_cases(recipe.name)
    unread = CachedPixels(np.zeros((0, 0, 0, 3), np.uint8), {case.digest: 0 for case in cases})
    labels = case_labels(patient_images(cases, unread, recipe.classes))
    return HoldoutCases(labels, told_cases(labels, len(recipe.classes), policy.minimum_cell))


def could_score(settings: SiteSettings, recipe: Recipe, policy: SitePolicy) -> bool:
    """Tell whether a model could be scored at this site, so that anything of it would leave.

    Raises
    ------
    ConfigurationError, StoreError
        If the case store cannot be read.
    """
    if not policy.scores_holdout:
        return False
    with closing(CaseStore.open(settings)) as store:
        return bool(holdout_cases(store, recipe, policy).told.any())


def forecast_scores(
    settings: SiteSettings, plan: RoundPlan, policy: SitePolicy, plans: PlanMemory, *, now: float
) -> bool:
    """Return what the answer to a preflight says: False if nothing could be scored here.

    True is also what is said once the day's scorings would be used up: nothing.

    Parameters
    ----------
    settings : SiteSettings
        The site.
    plan : RoundPlan
        A preflight that was accepted.
    policy : SitePolicy
        What may leave, and how often a day.
    plans : PlanMemory
        The accepted plans, this one included.
    now : float
        UTC seconds since 1970.

    Raises
    ------
    ConfigurationError, StoreError
        If the case store cannot be read.
    """
    if policy.scores_holdout and plans.preflights(now=now) > policy.evaluations_per_day:
        return True
    return could_score(settings, plan.recipe, policy)
