import pytest

from common.local_layers import local_names, shared_names
from common.model import build_model, classifier_names, set_trainable
from common.recipe import LocalLayers
from tests.client.rounds import TOY


def network(architecture: str, normalisation: str = "group"):  # type: ignore[no-untyped-def]
    spec = {"architecture": architecture, "normalisation": normalisation}
    model = TOY.model.model_copy(update=spec)
    return build_model(TOY.model_copy(update={"model": model}), pretrained=False)


@pytest.mark.parametrize("architecture", ["test_resnet", "test_vit", "test_convnext"])
def test_normalisation_is_every_scale_and_shift_and_nothing_else(architecture: str) -> None:
    model = network(architecture)
    names = local_names(model, ("normalisation",))
    assert names
    own = dict(model.named_parameters())
    assert all(own[name].dim() == 1 for name in names)
    # What is left of one dimension are biases of layers that multiply, and scales of branches.
    left = [n for n, p in own.items() if p.dim() == 1 and n not in names]
    left = [n for n in left if not n.endswith("gamma")]
    assert all(own[n.removesuffix("bias") + "weight"].dim() > 1 for n in left)


def test_the_head_is_the_classifier() -> None:
    model = network("test_resnet")
    assert local_names(model, ("head",)) == set(classifier_names(model))


@pytest.mark.parametrize("kinds", [(), ("normalisation",), ("normalisation", "head")])
def test_what_stays_and_what_travels_is_all_that_moves(kinds: LocalLayers) -> None:
    model = network("test_resnet")
    moving = set_trainable(model, "all")
    shared, staying = shared_names(moving, model, kinds), local_names(model, kinds)
    assert set(shared) | staying == set(moving)
    assert not set(shared) & staying
    assert (len(shared) == len(moving)) == (kinds == ())


def test_frozen_batch_norm_has_nothing_that_could_stay() -> None:
    assert local_names(network("test_resnet", "frozen"), ("normalisation",)) == frozenset()
