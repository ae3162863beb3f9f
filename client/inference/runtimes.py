"""What computes a network's outputs: torch as it is, or ONNX Runtime after it was compared.

ONNX Runtime on the CPU is two to three times as fast as eager torch. It is used only for a network
whose answers on golden images are those of torch, in one image and in several.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from client.inference.graphs import FEATURES, INPUT, OUTPUT, with_weights
from client.inference.outputs import Features, Logits, WithFeatures, probabilities_of
from common.errors import ModelError
from common.update import Tensors

log = logging.getLogger(__name__)

RuntimeName: TypeAlias = Literal["torch", "onnxruntime"]
Batch: TypeAlias = NDArray[np.float32]

TOLERANCE = 1e-4
"""Greatest difference of a class probability that still counts as the same answer."""
FEATURE_TOLERANCE = 1e-3
"""The same of a feature, in units of the batch's largest."""


class Runtime(Protocol):
    """Something that runs one network; any thread may ask, and several at once."""

    @property
    def name(self) -> RuntimeName:
        """What it is."""

    def run(self, batch: Batch) -> tuple[Logits, Features]:
        """Return logits, (B, K), and features, (B, D), for normalised images, (B, 3, S, S)."""


class TorchRuntime:
    """Eager torch on one device."""

    name: RuntimeName = "torch"

    def __init__(self, network: WithFeatures, device: torch.device) -> None:
        self._network = network
        self._device = device

    @torch.inference_mode()
    def run(self, batch: Batch) -> tuple[Logits, Features]:
        """Return the network's outputs."""
        logits, features = self._network(torch.from_numpy(batch).to(self._device))
        return logits.double().cpu().numpy(), features.float().cpu().numpy()


class OnnxRuntime:
    """ONNX Runtime on the CPU, one thread a call: calls at once use the cores.

    Raises
    ------
    ModelError
        With code ``graph-weights``, if ONNX Runtime refuses the model.
    """

    name: RuntimeName = "onnxruntime"

    def __init__(self, model: bytes) -> None:
        import onnxruntime  # it starts a thread, which the runner, that forks, must not have

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

    def run(self, batch: Batch) -> tuple[Logits, Features]:
        """Return the network's outputs.

        Raises
        ------
        ModelError
            With code ``prediction-failed``.
        """
        try:
            logits, features = self._session.run([OUTPUT, FEATURES], {INPUT: batch})
        except Exception as error:
            raise ModelError(
                f"ONNX Runtime failed ({type(error).__name__}).", code="prediction-failed"
            ) from error
        return np.asarray(logits, np.float64), np.asarray(features, np.float32)


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
        (logits, features), (expected, seen) = runtime.run(batch), reference.run(batch)
        distance = _distance(probabilities_of(logits), probabilities_of(expected))
        if not distance <= TOLERANCE:
            raise _differs("probabilities", distance)
        largest = max(float(np.abs(seen).max(initial=0.0)), FEATURE_TOLERANCE)
        distance = _distance(features, seen) / largest
        if not distance <= FEATURE_TOLERANCE:
            raise _differs("features", distance)
    return runtime


def _distance(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    if one.shape != other.shape:
        return float("inf")
    return float(np.abs(one - other).max(initial=0.0))


def _differs(what: str, distance: float) -> ModelError:
    return ModelError(
        f"ONNX Runtime's {what} differ by {distance:.1e} from torch's.",
        meaning="The network is run by torch itself, which is slower.",
        action="Tell Wardround's developers which network it is.",
        code="graph-differs",
    )
