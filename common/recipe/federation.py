"""How a federation runs: rounds, quorum, deadlines, and the published method it follows."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from common.compression import Compression
from common.errors import RecipeError
from common.recipe.aggregation import AggregationSpec, ServerOptimizer
from common.recipe.part import Fraction, Part, PositiveFloat
from common.recipe.training import LocalTraining

RoundsMode: TypeAlias = Literal["synchronous", "buffered"]
AlgorithmName: TypeAlias = Literal[
    "fedavg", "fedprox", "fedadam", "fedyogi", "fedadagrad", "scaffold"
]
LocalLayer: TypeAlias = Literal["normalisation", "head"]
LocalLayers: TypeAlias = tuple[LocalLayer, ...]


class FederationSpec(Part):
    """Rounds, quorum of successes, deadlines in seconds, aggregation and the server's optimizer.

    ``evaluations`` is how many of the rounds, spread evenly, also score the model on the holdouts
    (the first always does, and the final model is scored in any case); 0 is every round. Where
    rounds are many and short, scoring each would cost more than training.

    ``compression`` says how updates travel up, and the model's steps down
    (`common.compression`, ``docs/wire.md``); ``top-k`` keeps ``top_k_fraction`` of each
    tensor's values.

    ``mode`` is ``buffered`` where no round waits for the slowest site (FedBuff, Nguyen et al.
    2022, arXiv:2106.06639; ``docs/algorithms.md``): the model moves after every ``buffer_size``
    accepted updates (0: the quorum), an update more than ``max_staleness`` moves old is left out,
    any ``quorum_steps`` moves in a row hold updates of a quorum of different sites, and a site
    trains ``site_rounds`` times at most (0: twice ``rounds``), which is what its privacy is
    budgeted for.

    ``algorithm`` names a published method (``docs/algorithms.md``) in place of what
    ``server`` and ``server_with_privacy`` say; None leaves it to them. ``proximal_mu`` is
    FedProx' own.

    ``local_layers`` never leave their site (`common.local_layers`); left out of the JSON where
    there are none, so that sites of before can read it.
    """

    algorithm: AlgorithmName | None = None
    proximal_mu: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 0.01
    local_layers: Annotated[LocalLayers, Field(exclude_if=lambda value: not value)] = ()

    mode: RoundsMode = "synchronous"
    buffer_size: Annotated[int, Field(ge=0, le=1000)] = 0
    max_staleness: Annotated[int, Field(ge=0, le=10_000)] = 20
    quorum_steps: Annotated[int, Field(ge=1, le=10_000)] = 10
    site_rounds: Annotated[int, Field(ge=0, le=100_000)] = 0

    rounds: Annotated[int, Field(ge=1, le=100_000)] = 5
    quorum: Annotated[int, Field(ge=1)] = 2
    round_deadline_seconds: PositiveFloat = 3600.0
    evaluations: Annotated[int, Field(ge=0)] = 0
    early_stopping_rounds: Annotated[int, Field(ge=0)] = 0
    unfreeze_after: Fraction = 0.0
    compression: Compression = "none"
    top_k_fraction: Annotated[float, Field(gt=0, le=1)] = 0.03
    aggregation: AggregationSpec = AggregationSpec()
    server: ServerOptimizer = ServerOptimizer()
    server_with_privacy: ServerOptimizer = ServerOptimizer()

    @model_validator(mode="after")
    def _consistent(self) -> FederationSpec:
        if len(set(self.local_layers)) != len(self.local_layers):
            raise ValueError("local_layers: a layer is named twice")
        if self.algorithm != "scaffold":
            return self
        if self.compression == "top-k":
            raise ValueError("scaffold: a control variate cannot be had from a top-k update")
        if self.aggregation.name != "mean":
            raise ValueError("scaffold: the corrections of all sites only add up under `mean`")
        if self.mode != "synchronous":
            raise ValueError("scaffold: its rounds are synchronous")
        return self

    def optimizer(self, *, private: bool) -> ServerOptimizer:
        """Return how the coordinator applies the aggregate, as the algorithm has it."""
        given = self.server_with_privacy if private else self.server
        if self.algorithm is None:
            return given
        if self.algorithm in ("fedavg", "fedprox", "scaffold"):
            return ServerOptimizer(ema_decay=given.ema_decay)
        name = self.algorithm.removeprefix("fed")
        own = {} if given.name == name else {"learning_rate": 0.01}
        return ServerOptimizer.model_validate(
            given.model_dump() | {"name": name, "weight_decay": 0.0} | own
        )

    def local(self, training: LocalTraining) -> LocalTraining:
        """Return what a site does in a round, as the algorithm has it.

        Raises
        ------
        RecipeError
            With code ``algorithm-optimizer``: SCAFFOLD reads a site's mean gradient out of its
            update, which only plain SGD lets it.
        """
        if self.algorithm is None:
            return training
        if self.algorithm == "scaffold" and (training.optimizer != "sgd" or training.momentum > 0):
            raise RecipeError(
                "SCAFFOLD needs plain SGD at the sites.",
                meaning="A site's mean gradient could not be told from its update.",
                action='Set optimizer = "sgd" and momentum = 0 in the recipe\'s training part '
                "that is used ([privacy.training] with privacy), or choose another algorithm.",
                code="algorithm-optimizer",
            )
        mu = self.proximal_mu if self.algorithm == "fedprox" else 0.0
        return training.model_copy(update={"proximal_mu": mu})
