"""What privacy costs a training step: ``python -m tests.bench.dp_step``.

One optimizer step of a network on one thread, in several ways, interleaved in every repetition so
that another load on the machine falls on all of them alike; ratios are taken within a repetition
and their median is printed. ``plain`` is the same network without privacy. ``stock Opacus`` is
that network with Opacus' own convolution sampler (stock Opacus cannot run timm's as it is).
``ghost clipping`` is there to compare: no round is trained by it (`client.training.gradients`).
The exit status is 1 if ours exceeds the target.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import timm
import torch
from opacus import PrivacyEngine
from opacus.grad_sample import GradSampleHooks
from opacus.grad_sample.conv import compute_conv_grad_sample
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from common.dp_samplers import convolution, register_samplers
from common.model import build_model
from common.recipe import load_recipe

TARGET = 3.0
Step = Callable[[], None]


@dataclass
class Way:
    """One way to do a step, with the seconds that each repetition took."""

    name: str
    step: Step
    every: int = 1
    preferred: bool = False
    seconds: dict[int, float] = field(default_factory=dict)


def plain_step(model: nn.Module, images: Tensor, labels: Tensor) -> Step:
    """Return a step of plain SGD."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


def private_step(model: nn.Module, images: Tensor, labels: Tensor, *, mode: str) -> Step:
    """Return a whole DP-SGD step: per-sample gradients, clipping, noise, update."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    private = PrivacyEngine().make_private(
        module=model,
        optimizer=torch.optim.SGD(parameters, lr=0.01),
        data_loader=DataLoader(TensorDataset(images, labels), batch_size=len(images)),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        poisson_sampling=False,
        grad_sample_mode=mode,
        criterion=nn.CrossEntropyLoss(),
    )
    module, optimizer = private[0], private[1]
    criterion = private[2] if mode == "ghost" else nn.CrossEntropyLoss()

    def step() -> None:
        optimizer.zero_grad()
        criterion(module(images), labels).backward()
        optimizer.step()

    return step


def with_stock_convolution(step: Step) -> Step:
    """Let Opacus' own convolution sampler serve one step."""

    def stock() -> None:
        GradSampleHooks.GRAD_SAMPLERS[nn.Conv2d] = compute_conv_grad_sample
        try:
            step()
        finally:
            GradSampleHooks.GRAD_SAMPLERS[nn.Conv2d] = convolution

    return stock


def ways_of(architecture: str, *, size: int, batch: int, stock_every: int) -> list[Way]:
    """Return the ways to compare, the reference first."""
    recipe = load_recipe("mammography").with_changes(model=architecture, image_size=size)
    model = build_model(recipe)
    register_samplers()
    images = torch.randn(batch, 3, size, size)
    labels = torch.arange(batch) % len(recipe.classes)
    unchanged = timm.create_model(
        model.pretrained_cfg["architecture"],
        num_classes=len(recipe.classes),
        **({"img_size": size} if "vit" in architecture else {}),
    )
    hooks = private_step(copy.deepcopy(model), images, labels, mode="hooks")
    ghost = private_step(copy.deepcopy(model), images, labels, mode="ghost")
    stock = private_step(copy.deepcopy(model), images, labels, mode="hooks")
    ways = [
        Way("plain", plain_step(copy.deepcopy(model), images, labels)),
        Way("plain, timm unchanged", plain_step(unchanged, images, labels)),
        Way("ours, hooks", hooks, preferred=True),
        Way("ghost clipping", ghost),
    ]
    if stock_every:
        ways.append(Way("stock Opacus", with_stock_convolution(stock), every=stock_every))
    return ways


def measure(ways: list[Way], *, repetitions: int) -> None:
    """Run every way once to warm up, then take turns."""
    for repetition in range(-1, repetitions):
        for way in ways:
            if repetition % way.every and repetition >= 0:
                continue
            started = time.process_time()
            way.step()
            if repetition >= 0:
                way.seconds[repetition] = time.process_time() - started


def ratio(way: Way, reference: Way) -> float:
    """Return the median of the ratios taken within each repetition."""
    return statistics.median(way.seconds[r] / reference.seconds[r] for r in way.seconds)


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description="What privacy costs a training step.")
    parser.add_argument("--model", default="efficientnet_b0")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--stock-every", type=int, default=5, help="0: never")
    options = parser.parse_args()
    torch.set_num_threads(1)
    ways = ways_of(
        options.model,
        size=options.image_size,
        batch=options.batch,
        stock_every=options.stock_every,
    )
    measure(ways, repetitions=options.repetitions)
    title = f"{options.model}, {options.image_size} px, batch {options.batch}, one thread"
    table = Table("step", "median CPU ms", "x plain", title=title)
    for way in ways:
        milliseconds = 1e3 * statistics.median(way.seconds.values())
        table.add_row(way.name, f"{milliseconds:.0f}", f"{ratio(way, ways[0]):.2f}")
    console = Console()
    console.print(table)
    chosen = next(way for way in ways if way.preferred)
    ours = ratio(chosen, ways[0])
    verdict = "met" if ours <= TARGET else "MISSED"
    console.print(f"{chosen.name}, our choice here: {ours:.2f} x plain")
    console.print(f"target at most {TARGET:.1f}: {verdict}")
    return 0 if ours <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
