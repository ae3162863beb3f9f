"""Whether the site could score a candidate, kept for a minute: every holdout case is looked at.

A campaign that too few sites can score is stopped before its first round; who runs this site
should know before.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from client.cases.store import CaseStore
from client.intake.holdout_warnings import holdout_warning
from client.policy import SitePolicy
from client.settings import SiteSettings
from client.site_recipes import own_recipe
from client.status.documents import Scoring

KEPT_SECONDS = 60.0


@dataclass
class ScoringReader:
    """Reads what of a candidate's scores could leave one site.

    Parameters
    ----------
    settings, store
        The service's own.
    """

    settings: SiteSettings
    store: CaseStore
    _kept: tuple[float, str, Scoring] | None = field(default=None, init=False)

    def read(self) -> Scoring | None:
        """Return it; None where the site has no recipe of its task.

        Raises
        ------
        ConfigurationError, PrivacyRefused, RecipeError, StoreError
            If the policy, the recipe or the case store cannot be read.
        """
        text = self.settings.policy.read_text("utf-8")
        kept = self._kept
        if kept and kept[1] == text and time.monotonic() - kept[0] < KEPT_SECONDS:
            return kept[2]
        recipe = own_recipe(self.settings, self.settings.task)
        if recipe is None:
            return None
        policy = SitePolicy.parse(text, origin="policy.toml")
        warning = holdout_warning(self.store, recipe, policy)
        scoring = (
            Scoring(level="good", able=True, code=None, message="")
            if warning is None
            else Scoring(
                level="warn",
                able=warning.code == "scores-few-cases",
                code=warning.code,
                message=warning.message,
            )
        )
        self._kept = (time.monotonic(), text, scoring)
        return scoring
