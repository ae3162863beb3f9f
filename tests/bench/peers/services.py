"""Three usual ways to serve a timm network over HTTP, as their own documentation shows them.

``python -m tests.bench.peers.services KIND PORT [GRAPH]``: ``eager`` is FastAPI with eager torch in
a ``def`` endpoint; ``litserve`` is LitServe with ONNX Runtime, batching on; ``onnx`` is FastAPI
with ONNX Runtime in its thread pool, one thread a call. All take a multipart ``image``, decode it
with Pillow, and answer with JSON. None checks, logs or writes anything down.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

import litserve
import numpy as np
import onnxruntime
import timm
import torch
import uvicorn
from fastapi import FastAPI, File, UploadFile
from PIL import Image

ARCHITECTURE = "efficientnet_b0"
CLASSES = 7
SIDE = 224
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def pixels_of(data: bytes) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return float32 (3, S, S)."""
    image = Image.open(io.BytesIO(data)).convert("RGB").resize((SIDE, SIDE), Image.BILINEAR)
    unit = np.asarray(image, np.float32) / 255
    return np.ascontiguousarray(((unit - MEAN) / STD).transpose(2, 0, 1))


def answer_of(logits: np.ndarray[Any, Any]) -> dict[str, list[float]]:
    """Return the probabilities of one image."""
    shifted = np.exp(logits - logits.max())
    return {"probabilities": (shifted / shifted.sum()).tolist()}


def network() -> torch.nn.Module:
    """Return the network, untrained: its speed does not depend on its weights."""
    return timm.create_model(ARCHITECTURE, num_classes=CLASSES).eval()


def graph(folder: Path) -> str:
    """Write the network as ONNX with a free batch size; return the file."""
    path = str(folder / "model.onnx")
    torch.onnx.export(
        network(),
        (torch.zeros(2, 3, SIDE, SIDE),),
        path,
        dynamo=True,
        external_data=False,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},),
    )
    return path


def session(path: str, *, threads: int = 0) -> onnxruntime.InferenceSession:
    """Open a graph; 0 threads are ONNX Runtime's own default."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def eager() -> FastAPI:
    """FastAPI and eager torch."""
    app, model = FastAPI(), network()

    @app.post("/predict")
    def predict(image: UploadFile = File()) -> dict[str, list[float]]:  # noqa: B008
        batch = torch.from_numpy(pixels_of(image.file.read())[None])
        with torch.inference_mode():
            return answer_of(model(batch)[0].numpy())

    return app


def threaded(path: str) -> FastAPI:
    """FastAPI and ONNX Runtime, one thread a call, in FastAPI's thread pool."""
    app, onnx = FastAPI(), session(path, threads=1)

    @app.post("/predict")
    def predict(image: UploadFile = File()) -> dict[str, list[float]]:  # noqa: B008
        batch = pixels_of(image.file.read())[None]
        return answer_of(onnx.run(None, {"images": batch})[0][0])

    return app


class BatchedModel(litserve.LitAPI):  # type: ignore[misc]  # untyped
    """LitServe's API with its own batching."""

    def __init__(self, path: str) -> None:
        super().__init__(max_batch_size=8, batch_timeout=0.01)
        self.path = path

    def setup(self, device: str) -> None:
        """Open the graph in the worker."""
        self.onnx = session(self.path)

    # LitServe takes any annotation for a body to parse; without one it hands the form over.
    def decode_request(self, request):  # type: ignore[no-untyped-def]
        """Return one image's pixels, float32 (3, S, S)."""
        return pixels_of(request["image"].file.read())

    def batch(self, inputs: list[np.ndarray[Any, np.dtype[np.float32]]]) -> Any:
        """Stack the images."""
        return np.stack(inputs)

    def predict(self, x: Any) -> Any:
        """Run the network."""
        return self.onnx.run(None, {"images": x})[0]

    def unbatch(self, output: Any) -> Any:
        """Return the rows."""
        return list(output)

    def encode_response(self, output: Any) -> dict[str, list[float]]:
        """Return one image's answer."""
        return answer_of(output)


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("eager", "litserve", "onnx"))
    parser.add_argument("port", type=int)
    parser.add_argument(
        "graph", help="an ONNX file that `graph` wrote; eager takes none", nargs="?"
    )
    given = parser.parse_args()
    if given.kind == "eager":
        uvicorn.run(eager(), host="127.0.0.1", port=given.port, log_level="error")
        return
    if given.kind == "onnx":
        uvicorn.run(threaded(given.graph), host="127.0.0.1", port=given.port, log_level="error")
    else:
        server = litserve.LitServer(BatchedModel(given.graph), accelerator="cpu")
        server.run(host="127.0.0.1", port=given.port, log_level="error", generate_client_file=False)


if __name__ == "__main__":
    main()
