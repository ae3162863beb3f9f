"""The multipart bodies for the OpenAPI document; they are read by `uploads`, not by FastAPI."""

from __future__ import annotations

from collections.abc import Mapping

_IMAGE = {
    "type": "string",
    "format": "binary",
    "description": "PNG, JPEG, DICOM, or single-frame TIFF, BMP or GIF.",
}
_TEXTS = {
    "patient_id": "The site's own patient number; kept only as a keyed pseudonym.",
    "label": "The confirmed class; without it the case waits to be confirmed.",
    "age": "Years.",
    "sex": "As the site writes it.",
}


def _body(properties: Mapping[str, object]) -> dict[str, object]:
    schema = {"type": "object", "required": ["image"], "properties": properties}
    content = {"multipart/form-data": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}


PREDICT_BODY = _body({"image": _IMAGE})
BATCH_BODY = _body({"image": {"type": "array", "items": _IMAGE, "minItems": 1, "maxItems": 16}})
EXPLAIN_BODY = _body(
    {
        "image": _IMAGE,
        "method": {
            "type": "string",
            "enum": ["grad-cam", "integrated-gradients", "shap", "lime"],
            "default": "grad-cam",
        },
        "class": {
            "type": "string",
            "description": "One of the model's classes; by default the one of the verdict.",
        },
    }
)
SIMILAR_BODY = _body({"image": _IMAGE})
CASE_BODY = _body(
    {"image": _IMAGE}
    | {name: {"type": "string", "description": text} for name, text in _TEXTS.items()}
)
