"""A first campaign whose features are random says so; one that starts from something does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.model import build_model, state_tensors, write_safetensors
from common.recipe import load_recipe
from deploy.campaigns import prepare_campaign
from deploy.commands.first_model import warn_of_first_model
from tests.releases import Coordinator

RECIPE = load_recipe("dermoscopy").with_changes(model="test_resnet", image_size=32)


def test_it_is_said_on_stderr_for_the_head_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Coordinator.create(tmp_path / "coordinator").settings
    campaign = prepare_campaign(settings, RECIPE, private=True)
    assert warn_of_first_model(settings, campaign, weights=None)
    said = capsys.readouterr()
    assert said.out == ""
    assert "random features" in said.err


def test_nothing_is_said_where_all_of_it_trains_or_weights_are_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Coordinator.create(tmp_path / "coordinator").settings
    whole = prepare_campaign(settings, RECIPE, private=False)
    assert not warn_of_first_model(settings, whole, weights=None)
    weights = tmp_path / "features.safetensors"
    write_safetensors(weights, state_tensors(build_model(RECIPE, seed=1)))
    begun = prepare_campaign(settings, RECIPE, private=True, weights=weights)
    assert not warn_of_first_model(settings, begun, weights=weights)
    assert capsys.readouterr().err == ""
