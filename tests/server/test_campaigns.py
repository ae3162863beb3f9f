from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from common.errors import ConfigurationError, ModelError
from common.model import build_model, state_tensors, write_safetensors
from common.recipe import AggregationSpec, Recipe
from common.release import ModelFile, model_target
from server.campaigns import create_campaign
from server.coordinator_folder import create_coordinator_folder
from server.model_store import ModelStore, write_tensors
from server.registry.registry import Registry
from server.settings import CoordinatorSettings
from tests.fakes import FakeSite, toy_recipe
from tests.server.campaigns import Coordinator
from tests.server.registry.test_registry import candidate


def recipe(**model: object) -> Recipe:
    data = toy_recipe(rounds=10).model_dump()
    data["model"] = {"architecture": "test_resnet"} | model
    data["image"]["size"] = 32
    return Recipe.model_validate(data)


def recipe_of(classes: tuple[str, ...]) -> Recipe:
    data = recipe().model_dump() | {"classes": classes}
    data["decision"] = {"positive_classes": classes[:1]}
    return Recipe.model_validate(data)


@pytest.fixture
def settings(tmp_path: Path) -> CoordinatorSettings:
    return create_coordinator_folder(tmp_path / "coordinator", releases=False)


@pytest.fixture
def registry(settings: CoordinatorSettings) -> Iterator[Registry]:
    registry = Registry.open(settings)
    yield registry
    registry.close()


def test_a_campaign_starts_from_a_model_of_its_own(
    settings: CoordinatorSettings, registry: Registry
) -> None:
    first = registry.campaign(create_campaign(settings, registry, recipe()))
    second = registry.campaign(create_campaign(settings, registry, recipe()))
    assert first.id < second.id
    assert first.initial_digest != second.initial_digest, "a new start is random"
    model = build_model(recipe())
    weights = ModelStore(settings.models).load(first.initial_digest)
    assert weights.keys() == state_tensors(model).keys()
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    (phase,) = first.settings.phases
    assert (phase.first_round, phase.scope, set(phase.names)) == (1, "all", names)
    assert (first.settings.rounds, first.settings.quorum) == (10, 2)
    assert first.settings.epsilon == recipe().privacy.epsilon
    assert first.training == recipe().privacy.training


def test_what_is_given_wins_over_the_recipe(
    settings: CoordinatorSettings, registry: Registry
) -> None:
    identifier = create_campaign(
        settings,
        registry,
        recipe(),
        rounds=3,
        private=False,
        sites=("north", "south", "west"),
        quorum=3,
        auto_approve=False,
        site_wait_seconds=5.0,
        round_deadline_seconds=7.0,
    )
    campaign = registry.campaign(identifier)
    s = campaign.settings
    assert (s.rounds, s.epsilon, s.quorum, s.auto_approve) == (3, None, 3, False)
    assert (s.site_wait_seconds, s.round_deadline_seconds) == (5.0, 7.0)
    assert s.sites == ("north", "south", "west")
    assert not campaign.private
    assert campaign.training == campaign.recipe.training


@pytest.mark.parametrize(
    "changes",
    [
        {"rounds": 0},
        {"epsilon": -1.0},
        {"epsilon": 0.0},
        {"quorum": 0},
        {"sites": ("north",)},
        {"sites": ("North Hospital", "south")},
        {"round_deadline_seconds": 0.0},
    ],
)
def test_settings_that_cannot_be_are_refused_before_a_model_is_built(
    settings: CoordinatorSettings, registry: Registry, changes: dict[str, object]
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        create_campaign(settings, registry, recipe(), **changes)  # type: ignore[arg-type]
    assert caught.value.code == "campaign-settings"
    assert registry.campaigns() == ()
    assert list(settings.models.glob("*")) == []


def test_pretrained_features_train_their_head_first(
    settings: CoordinatorSettings, registry: Registry, tmp_path: Path
) -> None:
    data = recipe().model_dump()
    data["federation"]["unfreeze_after"] = 0.25
    thawing = Recipe.model_validate(data)
    path = tmp_path / "weights.safetensors"
    weights = state_tensors(build_model(thawing, seed=3))
    write_tensors(path, weights)
    campaign = registry.campaign(create_campaign(settings, registry, thawing, weights=path))
    head, rest = campaign.settings.phases
    assert (head.first_round, head.scope) == (1, "head")
    assert (rest.first_round, rest.scope) == (3, "all")
    assert set(head.names) < set(rest.names)
    loaded = ModelStore(settings.models).load(campaign.initial_digest)
    np.testing.assert_array_equal(loaded[rest.names[0]], weights[rest.names[0]])
    scratch = registry.campaign(create_campaign(settings, registry, thawing))
    assert len(scratch.settings.phases) == 1, "a random backbone has nothing to keep"


def test_weights_of_another_network_are_refused(
    settings: CoordinatorSettings, registry: Registry, tmp_path: Path
) -> None:
    path = tmp_path / "weights.safetensors"
    write_tensors(path, {"w": np.zeros(3, dtype=np.float32)})
    with pytest.raises(ModelError):
        create_campaign(settings, registry, recipe(), weights=path)
    assert registry.campaigns() == ()


def released(settings: CoordinatorSettings, registry: Registry, made: Recipe) -> str:
    """Put a release of a recipe into the registry and the store; return its digest."""
    digest = ModelStore(settings.models).save(state_tensors(build_model(made, seed=9)))
    found = candidate(registry)
    draft = found.draft.model_copy(update={"model_digest": digest, "recipe": made})
    file = ModelFile(name=model_target(digest), sha256="cd" * 32, bytes=10)
    registry.record_release(draft.released(len(registry.releases()) + 1, file))
    return digest


def test_a_campaign_goes_on_from_the_release_that_fits(
    settings: CoordinatorSettings, registry: Registry
) -> None:
    digest = released(settings, registry, recipe())
    campaign = registry.campaign(create_campaign(settings, registry, recipe()))
    assert (campaign.initial_digest, campaign.base_release) == (digest, 1)
    anew = registry.campaign(create_campaign(settings, registry, recipe(), from_release=False))
    assert anew.initial_digest != digest
    assert anew.base_release is None
    weights = settings.folder / "weights.safetensors"
    write_safetensors(weights, state_tensors(build_model(recipe(), seed=7)))
    wanted = registry.campaign(create_campaign(settings, registry, recipe(), weights=weights))
    assert (wanted.initial_digest == digest, wanted.base_release) == (False, None)
    other = recipe(architecture="test_efficientnet_gn")
    unlike = registry.campaign(create_campaign(settings, registry, other))
    assert unlike.base_release is None


@pytest.mark.parametrize(
    "classes", [("benign", "malignant"), ("malignant", "benign", "normal"), ("malignant", "other")]
)
@pytest.mark.parametrize("from_release", [True, False])
def test_a_task_keeps_its_classes_and_their_order(
    settings: CoordinatorSettings,
    registry: Registry,
    classes: tuple[str, ...],
    from_release: bool,
) -> None:
    """The weights fit all the same, and each class would be taken for the other."""
    released(settings, registry, recipe_of(("malignant", "benign")))
    create_campaign(settings, registry, recipe_of(("malignant", "benign")))
    campaigns = registry.campaigns()
    with pytest.raises(ConfigurationError, match="needs another name") as caught:
        create_campaign(settings, registry, recipe_of(classes), from_release=from_release)
    assert caught.value.code == "campaign-settings"
    assert registry.campaigns() == campaigns
    other = recipe_of(classes).model_copy(update={"name": "other"})
    create_campaign(settings, registry, other)


def test_the_first_round_scores_the_champion(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path, [FakeSite("north"), FakeSite("south")])
    first = coordinator.create()
    champion = coordinator.run(first)
    file = ModelFile(name=model_target(champion.model_digest), sha256="cd" * 32, bytes=10)
    coordinator.registry.record_release(champion.draft.released(1, file))
    second = coordinator.registry.add_campaign(
        first.recipe, first.settings, initial_digest=champion.model_digest, base_release=1
    )
    found = coordinator.run(second)
    assert found.draft.lineage.base_release == 1
    assert found.draft.metrics.champion == champion.draft.metrics.candidate
    (check,) = [c for c in found.draft.gate if c.name == "champion-non-inferiority"]
    assert check.passed
    assert check.limit == pytest.approx(champion.draft.metrics.candidate.macro_auroc)


def test_a_champion_of_another_network_is_scored_first(tmp_path: Path) -> None:
    """From scratch, three rounds are worse than the release: the gate must see that."""
    coordinator = Coordinator(tmp_path, [FakeSite("north"), FakeSite("south")])
    champion = coordinator.run(coordinator.create(rounds=6))
    file = ModelFile(name=model_target(champion.model_digest), sha256="cd" * 32, bytes=10)
    coordinator.registry.record_release(champion.draft.released(1, file))
    for site in coordinator.sites.values():
        site.speed = 0.1
    campaign = coordinator.create(rounds=3)
    found = coordinator.run(campaign)
    assert found.state == "refused"
    assert found.draft.metrics.champion is not None
    assert [c.name for c in found.draft.gate if not c.passed] == ["champion-non-inferiority"]
    rounds = coordinator.registry.rounds(campaign.id)
    assert (rounds[0].number, rounds[0].purpose) == (0, "evaluate")
    assert rounds[0].base_digest == champion.model_digest


def test_a_robust_aggregator_needs_a_majority_of_honest_updates(
    settings: CoordinatorSettings, registry: Registry
) -> None:
    def asked(name: str, malicious: int) -> Recipe:
        spec = AggregationSpec.model_validate({"name": name, "malicious": malicious})
        found = recipe()
        changed = found.federation.model_copy(update={"aggregation": spec})
        return found.model_copy(update={"federation": changed})

    for name in ("median", "trimmed-mean", "krum", "near-median"):
        with pytest.raises(ConfigurationError) as caught:
            create_campaign(settings, registry, asked(name, 1), quorum=2)
        assert caught.value.code == "campaign-settings"
    create_campaign(settings, registry, asked("mean", 1), quorum=2)
    identifier = create_campaign(settings, registry, asked("median", 1), quorum=3)
    assert registry.campaign(identifier).aggregation.name == "median"
