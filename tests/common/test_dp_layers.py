import pytest
import timm
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import nn

from common.dp_layers import convert, group_count, validate
from common.errors import ModelError


def network(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers)


class AnyBatchNorm(nn.BatchNorm2d):
    """A subclass that an exact type match would miss, as timm's own is by Opacus."""


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)
        self.second.weight = self.first.weight


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))


@pytest.mark.parametrize(
    ("layer", "code"),
    [
        (AnyBatchNorm(4), "model-batch-norm"),
        (BatchNormAct2d(4), "model-batch-norm"),
        (nn.BatchNorm1d(4), "model-batch-norm"),
        (nn.SyncBatchNorm(4), "model-batch-norm"),
        (nn.BatchNorm2d(4, affine=False), "model-batch-norm"),
        (nn.InstanceNorm2d(4, track_running_stats=True), "model-batch-norm"),
        (nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), "model-padding"),
        (nn.Conv2d(1, 1, 3, padding="same"), "model-padding"),
        (nn.ReLU(inplace=True), "model-in-place"),
        (Bare(), "model-unsupported"),
        (nn.Conv3d(1, 1, 1), "model-unsupported"),
        (Tied(), "model-tied"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_would_be_wrong_is_refused(layer, code):
    with pytest.raises(ModelError) as caught:
        validate(network(nn.Conv2d(3, 3, 1), layer))
    assert caught.value.code == code


def test_batch_norm_with_frozen_scale_is_refused_too():
    """It passes Opacus' validator, and in ``train()`` it mixes the batch all the same."""
    frozen = AnyBatchNorm(4).requires_grad_(False)
    with pytest.raises(ModelError) as caught:
        convert(network(frozen), normalisation="group")
    assert caught.value.code == "model-batch-norm"


def test_a_frozen_bare_parameter_may_stay():
    validate(network(Bare().requires_grad_(False)))


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(8), BatchNormAct2d(8)], ids=["plain", "act"])
def test_group_norm_keeps_scale_and_shift(norm):
    with torch.no_grad():
        norm.weight.uniform_(1, 2)
        norm.bias.uniform_(1, 2)
    expected = [norm.weight.clone(), norm.bias.clone()]
    model = convert(network(norm), normalisation="group")
    groups = [m for m in model.modules() if isinstance(m, nn.GroupNorm)]
    assert [m.num_groups for m in groups] == [2]
    torch.testing.assert_close(list(groups[0].parameters()), expected)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_frozen_batch_norm_keeps_the_pretrained_features(name):
    """In ``train()`` the converted network answers as the original does in ``eval()``."""
    original = timm.create_model(name, num_classes=2).double()
    for module in original.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = original.eval()(x)
        converted = convert(original.train(), normalisation="frozen").train()
        torch.testing.assert_close(converted(x), expected, rtol=1e-6, atol=1e-8)
    assert not [name for name, _ in converted.named_parameters() if "bn" in name]


def test_conversion_does_not_change_what_convnext_computes():
    """Its gamma moves into a module of its own, with its value."""
    model = timm.create_model("test_convnext", num_classes=2).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gamma"):
                parameter.uniform_(0.5, 1.5)
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    before = model(x)
    after = convert(model, normalisation="group")(x)
    torch.testing.assert_close(after, before, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("channels", [1, 3, 8, 16, 24, 32, 40, 96, 112, 480, 1280, 2048])
def test_groups_divide_and_are_not_too_small(channels):
    groups = group_count(channels)
    assert channels % groups == 0
    assert groups <= 32
    assert groups == 1 or channels // groups >= 4
