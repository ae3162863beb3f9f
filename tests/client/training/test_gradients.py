"""Nobody gets past the clip, whatever base model the coordinator chose."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from client.training.device import Device
from client.training.gradients import ClippedSum
from client.training.job import Workbench
from common.model import build_model
from common.recipe import SMALLEST_CLIP
from tests.client.rounds import TOY
from tests.client.training_toys import CPU, toy_images, toy_job

BFLOAT16 = Device(torch.device("cpu"), autocast=True)
WIDTH = 3 * 16 * 16


class Normalised(nn.Module):
    """A normalisation and a classifier, whose weights a test chooses."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.norm(images.flatten(1)))
        return logits

    def get_classifier(self) -> nn.Module:
        return self.head


class Line(nn.Module):
    """A classifier of zeros: its weights' gradient is half of its input, one way or the other."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(WIDTH, 2, bias=False)
        nn.init.zeros_(self.head.weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(images.flatten(1))
        return logits

    def get_classifier(self) -> nn.Module:
        return self.head


def make_cancelling(norm: nn.LayerNorm, head: nn.Linear, bias: float) -> None:
    """Let the true gradient of all that is before the classifier be 0, its rounding large."""
    with torch.no_grad():
        norm.weight.zero_()
        norm.bias.zero_()
        norm.bias[0] = 1
        head.weight.zero_()
        head.weight[:, 1] = 1e10
        head.bias.zero_()
        head.bias[0] = bias


def summed(bench: Workbench, inputs: torch.Tensor, *, clip: float, multiplicity: int = 1) -> float:
    """Return the norm of one patient's contribution, in units of the clip."""
    gradients = ClippedSum(bench, max_grad_norm=clip, multiplicity=multiplicity)
    try:
        gradients.add(inputs, torch.zeros(len(inputs), dtype=torch.int64))
    finally:
        gradients.close()
    found = [p.grad for p in bench.parameters() if p.grad is not None]
    return float(torch.cat([g.flatten().double() for g in found]).norm()) / clip


@pytest.fixture
def rows() -> torch.Tensor:
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("device", [CPU, BFLOAT16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("multiplicity", [1, 3])
def test_no_base_model_gets_a_patient_past_the_clip(
    device: Device, multiplicity: int, rows: torch.Tensor
) -> None:
    """By ghost clipping, which measures in one pass and adds another's, it was 496 clips."""
    model = Normalised()
    bench = Workbench.prepare(toy_job(device=device), model, toy_images([1]))
    worst = 0.0
    for step in range(40):
        make_cancelling(model.norm, model.head, 0.05 * step)
        found = summed(bench, rows[:multiplicity], clip=0.1, multiplicity=multiplicity)
        worst = max(worst, found)
    assert 0.5 < worst <= 1 + 1e-4


def test_nor_does_one_of_a_real_network() -> None:
    recipe = TOY.model_copy(
        update={"model": TOY.model.model_copy(update={"architecture": "test_convnext"})}
    )
    model = build_model(recipe, pretrained=False)
    bench = Workbench.prepare(toy_job(recipe), model, toy_images([1]))
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for step in range(6):
        make_cancelling(model.head.norm, model.head.fc, 0.05 * step)  # type: ignore
        assert summed(bench, image, clip=0.1) <= 1 + 1e-4


@settings(max_examples=150, deadline=None)
@given(
    size=st.floats(-44, 38.4),
    spread=st.floats(0, 20),
    clip=st.floats(float(np.log10(SMALLEST_CLIP)), 6),
    width=st.sampled_from([1, 3, WIDTH]),
)
def test_every_gradient_and_every_clip(size: float, spread: float, clip: float, width: int) -> None:
    """From float32's smallest number to its largest; what is small enough is added as it is."""
    bench = Workbench.prepare(toy_job(), Line(), toy_images([1]))
    exponents = torch.linspace(size - spread, size, width, dtype=torch.float64)
    inputs = torch.zeros(1, WIDTH)
    inputs[0, :width] = (10.0**exponents).clamp(max=3e38).float()
    bound = max(10.0**clip, SMALLEST_CLIP)
    true = float((0.5**0.5) * inputs.double().norm()) / bound
    found = summed(bench, inputs.view(1, 3, 16, 16), clip=bound)
    assert found <= 1 + 1e-5
    if 1e-30 < true * bound < 1e30:
        assert found == pytest.approx(min(true, 1.0), rel=1e-4)


def test_a_physical_batch_counts_each_patients_gradient() -> None:
    model = Normalised()
    bench = Workbench.prepare(toy_job(megabytes=1), model, toy_images([1]))
    with_gradients = bench.rows(per_sample_gradients=True)
    assert with_gradients < bench.rows(per_sample_gradients=False)
    gradients = ClippedSum(bench, max_grad_norm=1.0)
    gradients.close()
    assert gradients.patients_at_once == with_gradients
