"""What `campaign create`, `start` and `preflight` make of a campaign file and of their flags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from common.recipe import Recipe, load_recipe
from deploy.campaign_file import CampaignFile
from deploy.commands.agreed_networks import check_network_choice

if TYPE_CHECKING:
    from server.settings import CoordinatorSettings

OF_THE_RECIPE = {
    *("model", "image_size", "aggregation", "algorithm", "local_layers"),
    *("mode", "buffer_size", "site_rounds"),
}
"""What a campaign file changes in its recipe."""


def chosen_campaign(
    settings: CoordinatorSettings, chosen: CampaignFile
) -> tuple[Recipe, dict[str, Any]]:
    """Return the recipe as it was changed, and what `server.campaigns.create_campaign` takes.

    Raises
    ------
    ConfigurationError, RecipeError
        If the recipe or the protocol cannot be read, or sites would refuse the network
        (code ``network-not-agreed``).
    """
    from server.protocol import load_protocol

    agreed = load_recipe(chosen.recipe)
    check_network_choice(settings, agreed, chosen.model)
    recipe = agreed.with_changes(**chosen.model_dump(include=OF_THE_RECIPE))
    protocol = None if chosen.protocol is None else load_protocol(chosen.protocol, recipe)
    fields = chosen.model_dump(exclude={"recipe", "protocol", *OF_THE_RECIPE})
    return recipe, fields | {"protocol": protocol}
