"""How a round's updates become one, and how the coordinator applies it."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from common.recipe.part import Part, PositiveFloat

AggregationName: TypeAlias = Literal[
    "mean", "median", "trimmed-mean", "krum", "near-median", "descent"
]


class AggregationSpec(Part):
    """How a round's updates become one, and what a single site may do to it.

    ``mean`` weighs each site by the patients that it declares, but no site by more than
    ``largest_share`` of the whole where there are three or more. ``median`` and
    ``trimmed-mean`` (Yin et al. 2018, arXiv:1803.01498) are taken a coordinate at a time,
    ``krum`` (Multi-Krum, Blanchard et al. 2017, arXiv:1703.02757) averages the updates that lie
    closest together; these three give every site the same weight, whatever it declares.
    ``near-median`` is the mean again, but without the ``malicious`` updates that lie farthest
    from the coordinate-wise median (after the mean around the median of Xie et al. 2018,
    arXiv:1802.10116, with whole updates in place of coordinates: where hospitals differ, a
    median of each coordinate loses what only one of them knows). ``descent`` is the mean
    without up to ``malicious`` updates that are grossly long, or whose sites have answered to
    the model's movement as climbing a loss does (``server/rounds/descent_memory.py``).

    ``norm_multiple`` holds for all: an update longer than so many times the round's median
    norm is first scaled down to that length (Sun et al. 2019, arXiv:1911.07963); 0 is no bound.
    ``trim_fraction`` is cut off at each end (``trimmed-mean``); ``malicious`` is how many sites
    may lie (``krum``, ``near-median``, ``descent``, and the smallest quorum of all but
    ``mean``); those whose updates the checks refused are among them.
    """

    name: AggregationName = "mean"
    norm_multiple: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 3.0
    largest_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    trim_fraction: Annotated[float, Field(ge=0, lt=0.5)] = 0.25
    malicious: Annotated[int, Field(ge=0)] = 1


class ServerOptimizer(Part):
    """How the coordinator applies the weighted mean delta (FedOpt, arXiv:2003.00295).

    ``average`` adds it; ``adamw`` treats it, divided by local rate x steps, as a gradient.
    ``adam``, ``yogi`` and ``adagrad`` are that paper's own (algorithm 2), with ``adaptivity`` its
    tau: they take the delta as it is.
    """

    name: Literal["average", "adamw", "adam", "yogi", "adagrad"] = "average"
    adaptivity: PositiveFloat = 1e-3
    learning_rate: PositiveFloat = 1.0
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["constant", "one_cycle", "cosine_restarts"] = "constant"
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
