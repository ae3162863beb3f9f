"""Tensors of the Open Inference Protocol: images in, answers out."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import numpy as np

from client.api.protocol_v2_documents import (
    InferenceRequest,
    RequestInput,
    ResponseOutput,
    TensorMetadata,
)
from client.inference.engine import Images
from client.inference.prediction import Prediction
from common.errors import Busy, InputRefused, NotFound
from common.release import ReleaseManifest

MAXIMUM_IMAGES = 16
ODDS = 1000
"""Lists and values around the tensor's own."""
OUTPUTS = ("probabilities", "positive_probability", "verdict")


def input_tensors(size: int) -> tuple[TensorMetadata, ...]:
    """Describe the two forms in which images may come; a request has one of them."""
    return (
        TensorMetadata(name="image", datatype="BYTES", shape=(-1,)),
        TensorMetadata(name="pixels", datatype="UINT8", shape=(-1, size, size, 3)),
    )


def output_tensors(classes: int) -> tuple[TensorMetadata, ...]:
    """Describe what is answered."""
    return (
        TensorMetadata(name="probabilities", datatype="FP32", shape=(-1, classes)),
        TensorMetadata(name="positive_probability", datatype="FP32", shape=(-1,)),
        TensorMetadata(name="verdict", datatype="BYTES", shape=(-1,)),
    )


def wanted_outputs(asked: InferenceRequest) -> tuple[str, ...]:
    """Return which outputs are asked for, each once; all where none is named.

    Raises
    ------
    InputRefused
        If there is no such output.
    """
    names = dict.fromkeys(output.name for output in asked.outputs or ())
    unknown = [name for name in names if name not in OUTPUTS]
    if unknown:
        raise _refused(f"An output is asked for that is none of {', '.join(OUTPUTS)}.")
    return tuple(names) or OUTPUTS


def refuse_crowded(body: bytes, size: int) -> None:
    """Refuse a body with more values or lists than the most images have, before it is read.

    Each becomes an object: 44 MiB of ``[],`` would be a gigabyte, and 20 seconds in which nothing
    else is answered. The commas of a text count, too; base64 has none.

    Raises
    ------
    InputRefused
        With code ``upload-too-large``.
    """
    commas, lists = body.count(b","), body.count(b"[") + body.count(b"{")
    values = MAXIMUM_IMAGES * size * size * 3
    # Nested as far as may be, each pixel is a list of three values; rows and images come on top.
    if commas > values + ODDS or 3 * lists > commas + 3 * MAXIMUM_IMAGES * (size + 1) + ODDS:
        raise InputRefused(
            f"There are more values than {MAXIMUM_IMAGES} images of this model have.",
            action="Send fewer images, or encoded files in base64.",
            code="upload-too-large",
        )


def images_of(asked: InferenceRequest, size: int) -> list[bytes | Images]:
    """Return the images of a request: files' bytes, or pixels, uint8 (S, S, 3).

    Parameters
    ----------
    asked : InferenceRequest
        With one input.
    size : int
        S, the model's.

    Raises
    ------
    InputRefused
        If name, type, shape and data do not fit together.
    """
    (given,) = asked.inputs
    if (given.name, given.datatype) == ("image", "BYTES"):
        return _files(given)
    if (given.name, given.datatype) == ("pixels", "UINT8"):
        return _pixels(given, size)
    raise _refused("The input is neither image (BYTES) nor pixels (UINT8).")


def one_manifest(predictions: Sequence[Prediction], version: str | None) -> ReleaseManifest:
    """Return the release that gave all answers, and of the version that was asked for.

    Raises
    ------
    Busy, NotFound
        If the model was swapped in between.
    """
    manifest = predictions[0].manifest
    if any(found.manifest.model_digest != manifest.model_digest for found in predictions):
        raise Busy("The model was changed meanwhile.", action="Send the request again.")
    if version is not None and version != str(manifest.version):
        raise NotFound("That version does not answer here any more.")
    return manifest


def outputs_of(predictions: Sequence[Prediction], wanted: Sequence[str]) -> list[ResponseOutput]:
    """Write answers as tensors, row by row."""
    manifest, count = predictions[0].manifest, len(predictions)
    tensors = {
        "probabilities": ResponseOutput(
            name="probabilities",
            shape=(count, len(manifest.classes)),
            datatype="FP32",
            parameters={
                "classes": ",".join(manifest.classes),
                "model_digest": manifest.model_digest,
            },
            data=[_single(p) for found in predictions for p in found.probabilities],
        ),
        "positive_probability": ResponseOutput(
            name="positive_probability",
            shape=(count,),
            datatype="FP32",
            data=[_single(found.positive_probability) for found in predictions],
        ),
        "verdict": ResponseOutput(
            name="verdict",
            shape=(count,),
            datatype="BYTES",
            data=[str(found.verdict) for found in predictions],
        ),
    }
    return [tensors[name] for name in wanted]


def _files(given: RequestInput) -> list[bytes | Images]:
    if len(given.shape) != 1 or given.shape[0] != len(given.data):
        raise _refused("The shape of image does not fit its data.")
    _check_count(len(given.data))
    try:
        files = [base64.b64decode(item, validate=True) for item in given.data]
    except (binascii.Error, ValueError, TypeError) as error:
        raise _refused("The data of image are not texts in base64.") from error
    if not all(files):
        raise _refused("An image is empty.")
    return list(files)


def _pixels(given: RequestInput, size: int) -> list[bytes | Images]:
    if len(given.shape) != 4 or given.shape[1:] != (size, size, 3):
        raise _refused(f"The shape of pixels is not [n, {size}, {size}, 3].")
    count = given.shape[0]
    _check_count(count)
    flat = _flat(given.data, count * size * size * 3)
    return list(flat.reshape(count, size, size, 3))


def _flat(data: list[Any], length: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return data, flat or nested as the specification allows, if they are so many bytes."""
    try:
        values = np.asarray(data)
    except (ValueError, OverflowError) as error:
        raise _refused("The data of pixels are not a regular array.") from error
    if values.dtype.kind not in "iu" or values.size != length:
        raise _refused(f"The data of pixels are not {length} integers.")
    if values.min() < 0 or values.max() > 255:
        raise _refused("A value of pixels is not in 0 to 255.")
    return values.astype(np.uint8).ravel()


def _check_count(count: int) -> None:
    if not 1 <= count <= MAXIMUM_IMAGES:
        raise _refused(f"Send 1 to {MAXIMUM_IMAGES} images at once.")


def _single(value: float) -> float:
    return float(np.float32(value))


def _refused(what: str) -> InputRefused:
    return InputRefused(what, action="GET the model's metadata for names and shapes.")
