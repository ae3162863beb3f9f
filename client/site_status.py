"""What a site tells of itself with the answer to a preflight, where its policy lists it."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime

from client.cases.store import CaseStore
from client.drift import drift_level
from client.monitoring.told import prediction_drift_level
from client.plan_memory import PlanMemory
from client.policy import SitePolicy
from client.privacy.ledger import PrivacyLedger
from client.settings import SiteSettings
from common.plan import RoundPlan
from common.records import SiteStatus, band_floor

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


def site_status(
    settings: SiteSettings, plan: RoundPlan, policy: SitePolicy, plans: PlanMemory, *, now: float
) -> SiteStatus | None:
    """Return new cases and drift since the site last trained for the task; None where untold.

    The drift of predictions is that of the newest answers from the holdout of the release.

    New cases are patients with a case that was confirmed since then, on either side of the split.
    They are told by the floor of a band, and as 0 below the policy's smallest cell.

    Parameters
    ----------
    settings : SiteSettings
        The site.
    plan : RoundPlan
        A preflight that was accepted.
    policy : SitePolicy
        What may be told, and how often a day.
    plans : PlanMemory
        The accepted plans, this one included.
    now : float
        UTC seconds since 1970.

    Raises
    ------
    ConfigurationError, StoreError
        If the case store cannot be read.
    """
    listed = policy.release_status
    if not listed or plans.preflights(now=now) > policy.status_per_day:
        return None
    task = plan.recipe.name
    since = _last_trained(settings, task, plans)
    with closing(CaseStore.open(settings)) as store:
        cases = [*store.training_cases(task), *store.holdout_cases(task)]
        fresh = {c.patient for c in cases if (c.confirmed_at or c.created_at) > since}
        told = band_floor(len(fresh), policy.minimum_cell) if "new-cases" in listed else None
        drift = None
        if "drift" in listed:
            drift = drift_level(cases, store.image_bytes, since=since, spec=plan.recipe.image)
    predictions = None
    if "prediction-drift" in listed:
        classes, least = plan.recipe.classes, policy.minimum_cell
        predictions = prediction_drift_level(settings, task, classes, fewest=least, now=now)
    if (told, drift, predictions) == (None, None, None):
        return None
    return SiteStatus(new_cases=told, drift=drift, prediction_drift=predictions)


def _last_trained(settings: SiteSettings, task: str, plans: PlanMemory) -> datetime:
    """Return when the newest round was accepted that the ledger knows to have been trained.

    An accepted plan alone has learnt nothing: the device's memory may have run out, or the
    coordinator never meant it to be trained.
    """
    with PrivacyLedger.open(settings) as ledger:
        lines = ledger.entries()
    trained = {(line.campaign, line.round) for line in lines if line.outcome == "trained"}
    first: dict[tuple[str, int], datetime] = {}
    for one in plans.training_rounds(task):  # a lost reply is asked for again, and trains nothing
        if (one.campaign, one.round) in trained:
            first.setdefault((one.campaign, one.round), one.accepted_at)
    return max(first.values(), default=BEGINNING)
