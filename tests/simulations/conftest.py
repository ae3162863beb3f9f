import numpy as np
import pytest

from client.intake.source import ImportSource
from common.recipe import LocalTraining, load_recipe
from simulations.phantoms import scanner_for_site, write_phantom_folder


@pytest.fixture(scope="session")
def small_recipe():
    """Ultrasound with timm's smallest ResNet, two private rounds of two large steps."""
    recipe = load_recipe("breast-ultrasound").with_changes(
        model="test_resnet", image_size=48, rounds=2
    )
    local = LocalTraining(optimizer="sgd", learning_rate=0.5, local_steps=2, sampling_rate=0.5)
    privacy = recipe.privacy.model_copy(update={"training": local})
    return recipe.model_copy(update={"privacy": privacy})


@pytest.fixture(scope="session")
def phantom_source(tmp_path_factory, small_recipe):
    """Three phantom hospitals of 24 patients with one image each, in one table."""
    folder = tmp_path_factory.mktemp("phantoms")
    for index in range(3):
        write_phantom_folder(
            folder,
            small_recipe,
            scanner_for_site(index),
            24,
            np.random.default_rng(index),
            size=48,
            most_images=1,
            patient_prefix=f"h{index}-",
            site=f"Hospital {index}",
        )
    return ImportSource(data=folder)
