"""What an explanation costs, by network and method: ``python -m tests.bench.explanation``.

One thread, images of 224 pixels, random weights; the first call of each kind is not counted.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time

import numpy as np
import torch

from client.explanation.budget import Budget
from client.explanation.methods import Method, heat_map
from client.explanation.twin import make_twin
from common.model import build_model
from common.recipe import load_recipe

NETWORKS = ("efficientnet_b0", "resnet18", "resnet50", "convnext_tiny", "vit_small_patch16_224")
SIDE = 224
PATIENCE = 600.0


def seconds_of(architecture: str, methods: list[Method]) -> list[float]:
    """Return seconds of finding the layer, then of each method."""
    recipe = load_recipe("dermoscopy").with_changes(model=architecture, image_size=SIDE)
    network = build_model(recipe, pretrained=False).eval()
    image = np.random.default_rng(0).normal(size=(1, 3, SIDE, SIDE)).astype(np.float32)
    started = time.monotonic()
    twin = make_twin(network, SIDE)
    found = [time.monotonic() - started]
    for method in methods:
        if method is Method.grad_cam:
            heat_map(method, twin, image, 0, Budget(PATIENCE))
        started = time.monotonic()
        heat_map(method, twin, image, 0, Budget(PATIENCE))
        found.append(time.monotonic() - started)
    return found


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--methods", nargs="+", type=Method, default=list(Method))
    given = parser.parse_args()
    torch.set_num_threads(1)
    methods: list[Method] = given.methods
    heading = " | ".join(("network", "layer found", *(m.value for m in methods)))
    sys.stdout.write(f"| {heading} |\n|{'---|' * (len(methods) + 2)}\n")
    for name in given.networks:
        cells = " | ".join(f"{seconds:.2f} s" for seconds in seconds_of(name, methods))
        sys.stdout.write(f"| {name} | {cells} |\n")
        sys.stdout.flush()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(f"\nMost memory of this process: {most:.0f} MiB.\n")


if __name__ == "__main__":
    main()
