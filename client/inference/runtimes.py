"""What computes a network's outputs: torch as it is, or ONNX Runtime after it was compared.

ONNX Runtime on the CPU is two to three times as fast as eager torch. It is used only for a network
whose answers on golden images are those of torch, in one image and in several.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from client.inference.graph_export import INPUT, OUTPUT
from client.inference.graphs import with_weights
from common.errors import ModelError
from common.update import Tensors

log = logging.getLogger(__name__)

RuntimeName: TypeAlias = Literal["torch", "onnxruntime"]
Batch: TypeAlias = NDArray[np.float32]
Logits: TypeAlias = NDArray[np.float64]

TOLERANCE = 1e-4
"""Greatest difference of a class probability that still counts as the same answer."""


class Runtime(Protocol):
    """Something that runs one network; any thread may ask, and several at once."""

    @property
    def name(self) -> RuntimeName:
        """What it is."""

    def logits(self, batch: Batch) -> Logits:
        """Return the outputs, float64 (B, K), for normalised images, float32 (B, 3, S, S)."""


class TorchRuntime:
    """Eager torch on one device."""

    name: RuntimeName = "torch"

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._network = network
        self._device = device

    @torch.inference_mode()
    def logits(self, batch: Batch) -> Logits:
        """Return the network's outputs."""
        outputs = self._network(torch.from_numpy(batch).to(self._device))
        result: Logits = outputs.double().cpu().numpy()
        return result


class OnnxRuntime:
    """ONNX Runtime on the CPU, one thread a call: calls at once use the cores.

    Raises
    ------
    ModelError
        With code ``graph-weights``, if ONNX Runtime refuses the model.
    """

    name: RuntimeName = "onnxruntime"

    def __init__(self, model: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                model, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # pybind raises a family of its own
            raise ModelError(
                f"ONNX Runtime cannot load the network ({type(error).__name__}).",
                meaning="It is run by torch itself, which is slower.",
                code="graph-weights",
            ) from error

    def logits(self, batch: Batch) -> Logits:
        """Return the network's outputs.

        Raises
        ------
        ModelError
            With code ``prediction-failed``.
        """
        try:
            outputs = self._session.run([OUTPUT], {INPUT: batch})[0]
        except Exception as error:
            raise ModelError(
                f"ONNX Runtime failed ({type(error).__name__}).", code="prediction-failed"
            ) from error
        result: Logits = np.asarray(outputs, np.float64)
        return result


def compared(graph: Path, tensors: Tensors, reference: Runtime, golden: Batch) -> OnnxRuntime:
    """Return ONNX Runtime for a network, if it answers as the reference does.

    Parameters
    ----------
    graph : Path
        The network's, see `client.inference.graphs`.
    tensors : mapping of str to ndarray
        The release's weights.
    reference : Runtime
        Torch, with the same weights.
    golden : ndarray of float32, (B, 3, S, S)
        Images to compare on, all together and the first alone.

    Raises
    ------
    ModelError
        With code ``graph-weights`` or ``graph-differs``.
    """
    runtime = OnnxRuntime(with_weights(graph, tensors))
    for batch in (golden, golden[:1]):
        distance = _distance(runtime.logits(batch), reference.logits(batch))
        if not distance <= TOLERANCE:
            raise ModelError(
                f"ONNX Runtime's probabilities differ by {distance:.1e} from torch's.",
                meaning="The network is run by torch itself, which is slower.",
                action="Tell Wardround's developers which network it is.",
                code="graph-differs",
            )
    return runtime


def probabilities_of(logits: Logits) -> NDArray[np.float64]:
    """Return softmax over the last axis; NaN where an output is not finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
        result: NDArray[np.float64] = shifted / shifted.sum(axis=-1, keepdims=True)
    return result


def _distance(one: Logits, other: Logits) -> float:
    if one.shape != other.shape:
        return float("inf")
    return float(np.abs(probabilities_of(one) - probabilities_of(other)).max(initial=0.0))
