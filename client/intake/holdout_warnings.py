"""What is warned of the holdout: that nothing, or little, of it could help to judge a model.

A campaign whose candidate too few sites can score is not started: what it would spend of every
site's privacy would release nothing.
"""

from __future__ import annotations

from client.cases.store import CaseStore
from client.intake.summary import ImportSummary, ImportWarning
from client.policy import SitePolicy
from client.scores_told import holdout_cases
from client.settings import SiteSettings
from common.errors import ConfigurationError, PrivacyRefused
from common.recipe import Recipe

_MEANING = (
    "This site cannot help to judge a model; with too few sites that can, a campaign would spend "
    "privacy and releases nothing."
)
_CASES = "(`minimum_cell` of policy.toml; a case is a patient with one label)"


def with_holdout_warnings(
    summary: ImportSummary, store: CaseStore, recipe: Recipe, settings: SiteSettings
) -> ImportSummary:
    """Add what the site's own policy makes of the holdout in its store.

    A site without a case, or without a policy that can be read, is told so elsewhere.

    Raises
    ------
    StoreError
        If the case store cannot be read.
    """
    if not any(line.train + line.holdout for line in summary.class_balance):
        return summary
    try:
        policy = SitePolicy.read(settings.policy)
    except (ConfigurationError, PrivacyRefused):
        return summary
    warning = holdout_warning(store, recipe, policy)
    if warning is None:
        return summary
    return summary.model_copy(update={"warnings": (*summary.warnings, warning)})


def holdout_warning(store: CaseStore, recipe: Recipe, policy: SitePolicy) -> ImportWarning | None:
    """Return what the site could not do to judge a model; None where it could do all.

    The codes are ``scores-unreleased`` and ``scores-no-class`` (nothing), and
    ``scores-few-cases`` (not by every class).

    Raises
    ------
    StoreError
        If the case store cannot be read.
    """
    if not policy.scores_holdout:
        setting = (
            "evaluations_per_day = 0" if policy.release_evaluation else "release_evaluation = false"
        )
        return ImportWarning(
            code="scores-unreleased",
            message=f"The policy lets no count over the holdout leave ({setting}). {_MEANING} "
            "Whether it may is the hospital's decision, in policy.toml.",
        )
    cases = holdout_cases(store, recipe, policy)
    if not cases.told.any():
        return ImportWarning(
            code="scores-no-class",
            message=f"No class has {policy.minimum_cell} holdout cases {_CASES}, so that no count "
            f"over the holdout may leave. {_MEANING} Import more holdout cases, or, by decision "
            "of the hospital, set a smaller minimum_cell.",
        )
    few = cases.untold_classes(recipe)
    if few:
        return ImportWarning(
            code="scores-few-cases",
            message=f"Of {', '.join(few)} the holdout has fewer than {policy.minimum_cell} cases "
            f"{_CASES}: nothing of {'it' if len(few) == 1 else 'them'} leaves, and models are "
            "judged here by the other classes. Import more holdout cases of "
            f"{'it' if len(few) == 1 else 'them'}, or, by decision of the hospital, set a smaller "
            "minimum_cell.",
        )
    return None
