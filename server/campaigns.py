"""Creating a campaign: its first model, its settings, and its row in the registry."""

from __future__ import annotations

import logging
import math
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from common.errors import ConfigurationError
from common.recipe import LocalLayers, Recipe
from common.update import Tensors
from server.buffering import buffer_settings
from server.model_store import ModelStore
from server.protocol import GateProtocol, default_protocol
from server.registry.records import Campaign, CampaignSettings, Release, Scope, TrainablePhase
from server.registry.registry import Registry
from server.settings import CoordinatorSettings

if TYPE_CHECKING:
    from torch import nn

logger = logging.getLogger(__name__)

_UNKNOWN_PHASE = TrainablePhase(first_round=1, scope="all", names=("unknown",))


def create_campaign(
    settings: CoordinatorSettings,
    registry: Registry,
    recipe: Recipe,
    *,
    rounds: int | None = None,
    epsilon: float | None = None,
    private: bool = True,
    sites: tuple[str, ...] | None = None,
    from_release: bool = True,
    weights: Path | None = None,
    quorum: int | None = None,
    auto_approve: bool = True,
    only_preflight: bool = False,
    may_go_unscored: bool = False,
    site_wait_seconds: float | None = None,
    round_deadline_seconds: float | None = None,
    attempts: int | None = None,
    protocol: GateProtocol | None = None,
    goes_at_once: bool = False,
) -> str:
    """Record a new campaign, and put the model that it starts from into the model store.

    It starts from ``weights`` where they are given, else from the current release of the recipe's
    task when ``from_release`` is set and the architecture fits, else from timm's published
    weights (where the recipe says so), or at random.

    Parameters
    ----------
    settings : CoordinatorSettings
        Where models are kept.
    registry : Registry
        Gets the campaign.
    recipe : Recipe
        The task; what is not given here is taken from it.
    rounds, quorum, round_deadline_seconds : optional
        In place of the recipe's.
    attempts : int, optional
        How often a round is asked for while it lacks its quorum; 3 by default.
    epsilon : float, optional
        Asked of each site for the whole campaign; the recipe's by default.
    private : bool, default True
        False asks for a study without privacy, which sites refuse unless their policy allows it.
    sites : tuple of str, optional
        Who takes part; every registered site by default.
    from_release : bool, default True
        Whether to go on from the current release.
    weights : Path, optional
        A safetensors file to start from.
    auto_approve : bool, default True
        Whether a candidate that passes the gate is released without a person.
    only_preflight : bool, default False
        Only ask the sites what the campaign would cost them.
    may_go_unscored : bool, default False
        Go on where too few sites could score the candidate; for simulations.
    site_wait_seconds : float, optional
        How long sites may take to connect; 120 by default.
    protocol : GateProtocol, optional
        The release gate's limits; the recipe's by default. Locked from now on.
    goes_at_once : bool, default False
        Whether whoever keeps the campaigns starts it, without anything else being done.

    Returns
    -------
    str
        The campaign's id; ids sort by time.

    Raises
    ------
    ConfigurationError
        With code ``campaign-settings``, if the settings contradict each other, or the current
        release of the recipe's task has other classes.
    RecipeError
        With code ``algorithm-optimizer``, if the algorithm cannot work with the sites' optimizer.
    ModelError
        If the network cannot be built, or the weights do not fit.
    StoreError
        If the disk or the database failed.
    """
    from common.model import build_model  # torch takes seconds; running rounds needs none

    training = recipe.privacy.training if private else recipe.training
    recipe.federation.local(training)  # refuses what the algorithm cannot work with
    chosen = _settings(
        recipe,
        rounds=rounds,
        epsilon=(recipe.privacy.epsilon if epsilon is None else epsilon) if private else None,
        sites=sites,
        quorum=quorum,
        auto_approve=auto_approve,
        only_preflight=only_preflight,
        may_go_unscored=may_go_unscored,
        site_wait_seconds=site_wait_seconds,
        round_deadline_seconds=round_deadline_seconds,
        attempts=attempts,
        protocol=protocol or default_protocol(recipe),
    )
    champion = registry.champion(recipe.name)
    _check_classes(recipe, champion)
    model = build_model(recipe, weights=weights, seed=secrets.randbits(31))
    store = ModelStore(settings.models)
    follows = from_release and weights is None
    first = _first_model(store, champion if follows else None, model)
    fresh_features = first.release is None and (recipe.model.pretrained or weights is not None)
    unfreeze_after = recipe.federation.unfreeze_after if fresh_features else 0.0
    chosen = chosen.model_copy(
        update={"phases": _phases(model, recipe, chosen.rounds, unfreeze_after, private=private)}
    )
    campaign = registry.add_campaign(
        recipe,
        chosen,
        initial_digest=store.save(first.tensors),
        base_release=first.release,
        goes_at_once=goes_at_once,
    )
    logger.info("campaign-created campaign=%s task=%s", campaign.id, recipe.name)
    return campaign.id


def random_features(campaign: Campaign, *, weights: Path | None) -> str:
    """Say that a campaign would train a classifier on features that nobody ever trained.

    It is what a task's first campaign is without weights to start from, by the shipped recipes
    with privacy. Later ones start from the current release. Empty where it is not so.
    """
    head_alone = {phase.scope for phase in campaign.settings.phases} == {"head"}
    if not head_alone or weights is not None or campaign.base_release is not None:
        return ""
    if campaign.recipe.model.pretrained:
        return ""
    return (
        f"Only the classifier of {campaign.recipe.model.architecture} is trained, and what it sees "
        "are random features: there is no release to start from, and no --weights was given. "
        "docs/campaigns.md says how to start from pretrained ones."
    )


@dataclass(frozen=True)
class _FirstModel:
    tensors: Tensors
    release: int | None


def _settings(
    recipe: Recipe, *, rounds: int | None, quorum: int | None, **given: object
) -> CampaignSettings:
    federation = recipe.federation
    fields: dict[str, object] = {
        "rounds": federation.rounds if rounds is None else rounds,
        "quorum": federation.quorum if quorum is None else quorum,
        "early_stopping_rounds": federation.early_stopping_rounds,
        "phases": (_UNKNOWN_PHASE,),
    }
    fields |= {name: value for name, value in given.items() if value is not None}
    fields.setdefault("round_deadline_seconds", federation.round_deadline_seconds)
    fields.setdefault("epsilon", None)
    try:
        settings = CampaignSettings.model_validate(fields)
    except ValidationError as error:
        faults = "; ".join(f"{e['loc'][0]}: {e['msg']}" for e in error.errors() if e["loc"])
        raise ConfigurationError(
            f"The campaign's settings break a rule: {faults}.",
            action="Correct the field that is named.",
            code="campaign-settings",
        ) from error
    settings = settings.model_copy(update={"buffer": buffer_settings(recipe, settings)})
    check_majority(recipe, settings.quorum)
    if settings.sites is not None and len(set(settings.sites)) < settings.quorum:
        raise ConfigurationError(
            f"A quorum of {settings.quorum} is out of reach of {len(set(settings.sites))} sites.",
            action="Lower the quorum, or name more sites.",
            code="campaign-settings",
        )
    return settings


def check_majority(recipe: Recipe, quorum: int) -> None:
    """Refuse a robust aggregator over so few updates that the liars could be half of them.

    Raises
    ------
    ConfigurationError
        With code ``campaign-settings``.
    """
    spec = recipe.federation.aggregation
    needed = 2 * spec.malicious + 1
    if spec.name != "mean" and quorum < needed:
        raise ConfigurationError(
            f"With a quorum of {quorum}, `{spec.name}` cannot bear {spec.malicious} malicious.",
            meaning="Half of a round's updates could be theirs.",
            action=f"Ask for a quorum of {needed} or more (--quorum), or set `malicious` lower.",
            code="campaign-settings",
        )


def _check_classes(recipe: Recipe, champion: Release | None) -> None:
    """Refuse a task whose current release has other classes, or the same in another order.

    Nothing in its weights tells them apart: their outputs would be taken for each other.
    """
    if champion is None or champion.manifest.recipe.classes == recipe.classes:
        return
    raise ConfigurationError(
        f"Release {champion.version} of task {recipe.name} has the classes "
        f"{', '.join(champion.manifest.recipe.classes)[:200]}, in this order; this recipe has "
        f"{', '.join(recipe.classes)[:200]}.",
        meaning="No model of the one can be compared with, or go on from, one of the other.",
        action="A task with other classes needs another name.",
        code="campaign-settings",
    )


def _first_model(store: ModelStore, champion: Release | None, model: nn.Module) -> _FirstModel:
    from common.model_files import state_tensors

    fresh: Tensors = state_tensors(model)
    if champion is None:
        return _FirstModel(fresh, None)
    current = store.load(champion.model_digest)
    if _shapes(current) != _shapes(fresh):
        logger.warning("champion-unlike version=%d: the campaign starts anew", champion.version)
        return _FirstModel(fresh, None)
    return _FirstModel(current, champion.version)


def _shapes(tensors: Tensors) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (array.shape, array.dtype.name) for name, array in tensors.items()}


def _phases(
    model: nn.Module, recipe: Recipe, rounds: int, unfreeze_after: float, *, private: bool
) -> tuple[TrainablePhase, ...]:
    """Train the head alone for the first rounds, where the features are pretrained.

    Each phase's names are those that travel: layers that stay at the sites are not among them.
    """
    scope = recipe.privacy.trainable if private else recipe.model.trainable
    local = recipe.federation.local_layers
    alone = scope != "head" and "head" not in local  # else nothing would travel in these rounds
    head_rounds = math.floor(unfreeze_after * rounds) if alone else 0
    rest = _phase(model, scope, local, first_round=head_rounds + 1)
    if head_rounds == 0:
        return (rest,)
    head = _phase(model, "head", (), first_round=1)
    return (head, rest) if head_rounds < rounds else (head,)


def _phase(
    model: nn.Module, scope: Scope, local: LocalLayers, *, first_round: int
) -> TrainablePhase:
    from common.local_layers import shared_names
    from common.model import set_trainable

    moving = set_trainable(model, scope)
    names = shared_names(moving, model, local)
    if not names or (local and len(names) == len(moving)):
        what = (
            "Nothing that is trained would travel" if not names else "No trained layer would stay"
        )
        raise ConfigurationError(
            f"{what} with local layers ({', '.join(local)}) and the scope `{scope}`.",
            meaning="The campaign would not do what it says.",
            action="Train more of the network (`trainable` in the recipe's [model] and [privacy]), "
            "use `group` normalisation, or name other local layers.",
            code="campaign-settings",
        )
    return TrainablePhase(first_round=first_round, scope=scope, names=names)
