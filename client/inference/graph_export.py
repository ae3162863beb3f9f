"""Writing a recipe's network as an ONNX graph: ``python -m client.inference.graph_export``.

A process of its own, because tracing a network takes seconds in which Python answers nobody
else, and memory that the service need not keep. The graph is one of the recipe's network, not of
a release: its initializers have the names of the network's tensors after ``network.``, so that
each release's weights are put into the same graph (`client.inference.graphs`). Nothing is folded
here for that reason; ONNX Runtime folds and fuses when it loads.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from pathlib import Path

import onnx_ir as ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from timm.layers.norm_act import unfreeze_batch_norm_2d
from torch import nn

from client.inference.graphs import FEATURES, INPUT, OUTPUT
from client.inference.outputs import WithFeatures
from common.errors import ModelError, WardroundError
from common.model import build_model
from common.recipe import Recipe, parse_recipe

MAXIMUM_BATCH = 256


def export_graph(recipe: Recipe, target: Path) -> None:
    """Write the recipe's network, with weights that mean nothing, as one ONNX file.

    Images in: float32 (B, 3, S, S), normalised, 1 <= B <= 256. Out: logits, float32
    (B, K), and what the classifier sees, float32 (B, D).

    Parameters
    ----------
    recipe : Recipe
        Its architecture, normalisation, image size and number of classes are used.
    target : Path
        Appears whole, or not at all.

    Raises
    ------
    ModelError
        With code ``graph-export``, where torch cannot express the network in ONNX.
    """
    network = as_exported(build_model(recipe, pretrained=False))
    side = recipe.image.size
    batch = torch.export.Dim("batch", min=1, max=MAXIMUM_BATCH)
    try:
        program = torch.onnx.export(
            WithFeatures(network, side),
            (torch.zeros(2, 3, side, side),),
            dynamo=True,
            optimize=False,
            verbose=False,
            input_names=[INPUT],
            output_names=[OUTPUT, FEATURES],
            dynamic_shapes={"images": {0: batch}},
        )
    except Exception as error:  # the exporter raises errors of its own, and any other
        raise ModelError(
            f"The network cannot be written as ONNX ({type(error).__name__}).",
            meaning="It is run by torch itself, which is slower.",
            code="graph-export",
        ) from error
    if program is None:
        raise ModelError("The ONNX exporter gave no graph.", code="graph-export")
    _drop_zero_biases(program.model.graph)
    RemoveUnusedNodesPass()(program.model)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as folder:
        file = Path(folder) / "graph.onnx"
        program.save(str(file), external_data=False)
        file.chmod(0o600)
        file.replace(target)


def as_exported(network: nn.Module) -> nn.Module:
    """Return the network for answering alone, with frozen BatchNorm as ONNX' own operator.

    Frozen layers compute scale and shift from the statistics each time, which no runtime fuses
    into the convolution before; the operator it does.
    """
    answering: nn.Module = unfreeze_batch_norm_2d(network)  # type: ignore[no-untyped-call]  # timm's
    return answering.eval()


def _drop_zero_biases(graph: ir.Graph) -> None:
    """Take away the bias of zeros that the exporter computes for a convolution that has none.

    It computes them from the images' type, so no runtime sees that they are constant, and none
    fuses the normalisation that follows: the network takes twice as long.
    """
    for node in graph:
        if node.op_type != "Conv" or len(node.inputs) < 3:
            continue
        bias = node.inputs[2]
        if bias is not None and bias.producer() is not None:  # a bias of weights has none
            node.resize_inputs(2)  # an input that is there but empty stops the fusion, too


def main() -> int:
    """Read a recipe's JSON from standard input and write the graph; 1 where that fails."""
    parser = argparse.ArgumentParser(description="Write a recipe's network as ONNX.")
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    try:
        export_graph(parse_recipe(sys.stdin.read(), origin="standard input"), options.out)
    except WardroundError as error:
        sys.stderr.write(f"{error.line()}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
