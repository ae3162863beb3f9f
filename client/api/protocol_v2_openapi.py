"""What the OpenAPI document says of the Open Inference Protocol: bodies and errors."""

from __future__ import annotations

from typing import Any

_PARAMETERS = {"type": "object"}
_INPUT = {
    "type": "object",
    "required": ["name", "shape", "datatype", "data"],
    "properties": {
        "name": {"type": "string", "enum": ["image", "pixels"]},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "datatype": {"type": "string", "enum": ["BYTES", "UINT8"]},
        "parameters": _PARAMETERS,
        "data": {"type": "array", "items": {}},
    },
}
_OUTPUT_NAMES = ["probabilities", "positive_probability", "verdict"]
_OUTPUT = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "enum": _OUTPUT_NAMES},
        "parameters": _PARAMETERS,
    },
}
_REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string", "maxLength": 256},
        "parameters": _PARAMETERS,
        "inputs": {"type": "array", "minItems": 1, "maxItems": 1, "items": _INPUT},
        "outputs": {"type": "array", "maxItems": 8, "items": _OUTPUT},
    },
}
_EXAMPLE = {
    "id": "42",
    "inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["iVBORw0KGgo="]}],
    "outputs": [{"name": "probabilities"}],
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}},
}
_STATUSES = {
    400: "The request cannot be answered as it is.",
    401: "No key and no session.",
    403: "The caller lacks the role.",
    404: "There is no such model or version.",
    408: "The body came too slowly.",
    413: "The body is too large.",
    429: "Too much at once; see Retry-After.",
    503: "There is no model, or the service is ending.",
    504: "It waited too long for its turn.",
}

INFER_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": _REQUEST, "example": _EXAMPLE}},
    }
}
V2_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {"application/json": {"schema": _ERROR}}}
    for status, text in _STATUSES.items()
}
