"""What a recipe's buffered rounds come to in one campaign, and which of them make no sense."""

from __future__ import annotations

from common.errors import ConfigurationError
from common.recipe import Recipe
from server.registry.records import BufferSettings, CampaignSettings

SITE_ROUNDS_FACTOR = 2
"""A site's rounds over the model's steps, by default: a quick site takes part more often."""


def buffer_settings(recipe: Recipe, settings: CampaignSettings) -> BufferSettings | None:
    """Return a campaign's buffer; None where its rounds are synchronous.

    Raises
    ------
    ConfigurationError
        With code ``campaign-settings``, if the steps could never be made, or the aggregation needs
        whole rounds.
    """
    spec = recipe.federation
    if spec.mode != "buffered":
        return None
    if spec.aggregation.name == "descent":
        raise _refused(
            "`descent` cannot be used with buffered rounds.",
            "It compares a site's updates with models that all sites were given together.",
            "Choose another aggregation, or synchronous rounds.",
        )
    buffer = BufferSettings(
        size=spec.buffer_size or settings.quorum,
        site_rounds=spec.site_rounds or SITE_ROUNDS_FACTOR * settings.rounds,
        max_staleness=spec.max_staleness,
        quorum_steps=spec.quorum_steps,
    )
    if settings.sites is not None:
        needed = settings.rounds * buffer.size
        there = len(set(settings.sites)) * buffer.site_rounds
        if there < needed:
            raise _refused(
                f"{settings.rounds} steps of {buffer.size} updates need {needed} updates, but "
                f"{len(set(settings.sites))} sites may train {buffer.site_rounds} times each.",
                "The campaign could never come to its end.",
                "Raise `site_rounds`, or ask for fewer rounds or a smaller `buffer_size`.",
            )
    return buffer


def _refused(what: str, meaning: str, action: str) -> ConfigurationError:
    return ConfigurationError(what, meaning=meaning, action=action, code="campaign-settings")
