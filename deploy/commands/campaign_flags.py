"""The flags of `wardround coordinator campaign create`, `start` and `preflight`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, cast

import typer

from common.recipe import AggregationName, AlgorithmName, LocalLayers, RoundsMode
from deploy.campaign_file import CampaignFile, read_campaign
from deploy.console import RECIPE_HELP

File = Annotated[Path | None, typer.Option("--file", help="A campaign as TOML; flags go before.")]
RecipeName = Annotated[
    str | None,
    typer.Option(help=RECIPE_HELP),
]
Rounds = Annotated[
    int | None, typer.Option(min=1, help="Training rounds.", show_default="the recipe's")
]
Epsilon = Annotated[
    float | None,
    typer.Option(
        min=0.01, help="Each site's epsilon for the campaign.", show_default="the recipe's"
    ),
]
NoPrivacy = Annotated[
    bool, typer.Option("--no-privacy", help="A study without differential privacy.")
]
Sites = Annotated[
    list[str] | None,
    typer.Option(
        "--site", help="Who takes part; may repeat.", show_default="every registered site"
    ),
]
Quorum = Annotated[
    int | None,
    typer.Option(min=1, help="Successes that a round needs.", show_default="the recipe's"),
]
Deadline = Annotated[
    float | None, typer.Option(min=1, help="Longest wait for a site's answer, seconds.")
]
SiteWait = Annotated[float | None, typer.Option(min=1, help="Longest wait for sites, seconds.")]
Model = Annotated[
    str | None,
    typer.Option(help="Another network: one of the recipe's alternatives.", show_default="its own"),
]
ImageSize = Annotated[
    int | None, typer.Option(help="Another image size, pixels.", show_default="the recipe's")
]
Algorithm = Annotated[
    AlgorithmName | None,
    typer.Option(help="A published method.", show_default="the recipe's"),
]


class LocalLayerName(StrEnum):
    """`common.recipe.LocalLayer`, as the command line can repeat it."""

    normalisation = "normalisation"
    head = "head"


LocalLayerNames = Annotated[
    list[LocalLayerName] | None,
    typer.Option(
        "--local-layers",
        help="Layers that never leave their site; may repeat.",
        show_default="the recipe's",
    ),
]


def chosen_layers(names: Sequence[str] | None) -> LocalLayers | None:
    """Return what was named; None where nothing was, and the recipe says it."""
    return cast("LocalLayers", tuple(str(name) for name in names)) if names else None


Aggregation = Annotated[
    AggregationName | None,
    typer.Option(help="How updates become one.", show_default="the recipe's"),
]
Mode = Annotated[
    RoundsMode | None,
    typer.Option(help="`buffered` rounds wait for no site.", show_default="the recipe's"),
]
BufferSize = Annotated[
    int | None, typer.Option(min=1, help="Updates after which the model moves, where buffered.")
]
SiteRounds = Annotated[
    int | None, typer.Option(min=1, help="How often a site trains at most, where buffered.")
]
Weights = Annotated[
    Path | None,
    typer.Option(help="Safetensors to start from: timm's for this network, or Wardround's."),
]
Protocol = Annotated[
    Path | None,
    typer.Option(help="TOML that locks the release gate's limits.", show_default="the recipe's"),
]
ByHand = Annotated[
    bool, typer.Option("--by-hand", help="Leave a candidate that passes the gate to a person.")
]
Watch = Annotated[bool, typer.Option("--watch", help="Wait for its end.")]
Identifier = Annotated[str, typer.Argument(help="The campaign's id.")]


@dataclass(frozen=True, kw_only=True)
class CampaignFlags:
    """What a campaign is to be, as flags; a None leaves it to the file, and that to the recipe."""

    file: File = None
    recipe: RecipeName = None
    rounds: Rounds = None
    epsilon: Epsilon = None
    no_privacy: NoPrivacy = False
    site: Sites = None
    quorum: Quorum = None
    deadline: Deadline = None
    site_wait: SiteWait = None
    model: Model = None
    image_size: ImageSize = None
    aggregation: Aggregation = None
    algorithm: Algorithm = None
    local_layers: LocalLayerNames = None
    mode: Mode = None
    buffer_size: BufferSize = None
    site_rounds: SiteRounds = None
    weights: Weights = None
    protocol: Protocol = None
    by_hand: ByHand = False

    def read(self) -> CampaignFile:
        """Return the campaign of the file and of the flags, which come first.

        Raises
        ------
        ConfigurationError
            As `read_campaign`.
        """
        return read_campaign(
            self.file,
            recipe=self.recipe,
            rounds=self.rounds,
            epsilon=self.epsilon,
            private=False if self.no_privacy else None,
            sites=tuple(self.site) if self.site else None,
            quorum=self.quorum,
            round_deadline_seconds=self.deadline,
            site_wait_seconds=self.site_wait,
            model=self.model,
            image_size=self.image_size,
            aggregation=self.aggregation,
            algorithm=self.algorithm,
            local_layers=chosen_layers(self.local_layers),
            mode=self.mode,
            buffer_size=self.buffer_size,
            site_rounds=self.site_rounds,
            weights=self.weights,
            protocol=self.protocol,
            auto_approve=False if self.by_hand else None,
        )
