"""Layers that stay at the sites, from the coordinator's end."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from common.errors import ConfigurationError
from common.local_layers import local_names
from common.model import build_model
from common.plan import RoundPlan
from common.recipe import LocalLayers, Recipe
from common.records import SiteReply
from common.update import ModelUpdate
from server.campaigns import create_campaign
from server.coordinator_folder import create_coordinator_folder
from server.model_store import ModelStore
from server.registry.records import TrainablePhase
from server.registry.registry import Registry
from tests.client.rounds import TOY
from tests.fakes import FakeSite, binding_of, first_model, make_receipt, toy_recipe
from tests.server.campaigns import Coordinator

STAYS, TRAVELS = "head.bias", "head.weight"
PHASES = (TrainablePhase(first_round=1, scope="all", names=(TRAVELS,)),)


@dataclass
class ClosedSite(FakeSite):
    """A site whose bias stays, but where it `leaks`."""

    leaks: bool = False

    def honest(self, plan: RoundPlan, base: dict[str, NDArray[np.generic]]) -> SiteReply:
        reply = super().honest(plan, base)
        if reply.update is None:
            return reply
        kept = {n: a for n, a in reply.update.tensors.items() if self.leaks or n != STAYS}
        update = ModelUpdate(binding_of(plan), kept)
        receipt = make_receipt(self.name, plan, update, patients=self.patients)
        return SiteReply(self.name, None, receipt, update, reply.evaluation)


def test_an_update_that_carries_one_is_refused_and_the_start_keeps_its_own(tmp_path: Path) -> None:
    sites = [ClosedSite("north"), ClosedSite("south"), ClosedSite("leaking", leaks=True)]
    coordinator = Coordinator(tmp_path, list(sites))
    recipe = toy_recipe(rounds=2, local_layers=("head",))
    campaign = coordinator.create(recipe, rounds=2, phases=PHASES)
    candidate = coordinator.run(campaign)
    told = coordinator.contribution(campaign, "leaking")
    assert (told.outcome, told.code) == ("rejected", "update-names")
    assert coordinator.contribution(campaign, "north").outcome == "accepted"
    weights = ModelStore(coordinator.settings.models).load(candidate.model_digest)
    np.testing.assert_array_equal(weights[STAYS], first_model()[STAYS])
    assert not np.array_equal(weights[TRAVELS], first_model()[TRAVELS])


def recipe_of(scope: str, local: LocalLayers, normalisation: str = "group") -> Recipe:
    model = TOY.model.model_copy(update={"trainable": scope, "normalisation": normalisation})
    federation = TOY.federation.model_copy(update={"local_layers": local})
    return TOY.model_copy(update={"model": model, "federation": federation})


def test_a_campaigns_phases_name_what_travels(tmp_path: Path) -> None:
    settings = create_coordinator_folder(tmp_path / "coordinator", releases=False)
    registry = Registry.open(settings)
    recipe = recipe_of("all", ("normalisation",))
    identifier = create_campaign(settings, registry, recipe, private=False)
    (phase,) = registry.campaign(identifier).settings.phases
    model = build_model(recipe, pretrained=False)
    staying = local_names(model, ("normalisation",))
    assert set(phase.names) == {n for n, _ in model.named_parameters()} - staying
    registry.close()


@pytest.mark.parametrize(
    ("scope", "local", "normalisation"),
    [
        ("head", ("head",), "group"),  # nothing would travel
        ("head", ("normalisation",), "group"),  # nothing would stay
        ("all", ("normalisation",), "frozen"),
    ],
)
def test_local_layers_that_make_no_sense_are_refused(
    tmp_path: Path, scope: str, local: LocalLayers, normalisation: str
) -> None:
    settings = create_coordinator_folder(tmp_path / "coordinator", releases=False)
    registry = Registry.open(settings)
    with pytest.raises(ConfigurationError) as refused:
        create_campaign(settings, registry, recipe_of(scope, local, normalisation), private=False)
    assert refused.value.code == "campaign-settings"
    registry.close()


def test_the_best_model_is_scored_again_as_it_would_be_released(tmp_path: Path) -> None:
    """The rounds' scores are of models with each site's own layers."""
    sites = [ClosedSite("north"), ClosedSite("south")]
    coordinator = Coordinator(tmp_path, list(sites))
    recipe = toy_recipe(rounds=6, local_layers=("head",))
    campaign = coordinator.create(recipe, rounds=6, phases=PHASES, early_stopping_rounds=1)
    candidate = coordinator.run(campaign)
    final = [r for r in coordinator.registry.rounds(campaign.id) if r.purpose == "evaluate"]
    assert [r.base_digest for r in final] == [candidate.model_digest]
