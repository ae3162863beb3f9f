"""The OpenAPI document: what FastAPI knows, and what it cannot know.

Who may ask, which errors there are, in which form, and what is answered that is no JSON. Operation
ids are the handlers' names: they are part of the interface, for generated clients call them.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from client.access.guard import PUBLIC, all_routes, roles_wanted
from client.api.documents import Problem

SCHEMES = {
    "key": {
        "type": "http",
        "scheme": "bearer",
        "description": "A program's key, made by `wardround site key add`.",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "__Host-wardround-session",
        "description": "A person's session, from /sign-in; changes need an Origin of this site.",
    },
}
OTHER_MEDIA = {
    "/metrics": ("text/plain", {"type": "string"}),
    "/predict/fhir": ("application/fhir+json", {"type": "object"}),
    "/review/{case_id}/image": ("image/png", {"type": "string", "format": "binary"}),
}
"""By path: what is answered well, and is no JSON document."""

PROBLEM = {"$ref": "#/components/schemas/Problem"}
ERRORS = {
    "401": "No key and no session, or one that has ended.",
    "403": "The caller lacks the role, or another web site asked.",
    "422": "What was sent is not as expected.",
    "429": "Too much at once; `Retry-After` says when to try again.",
    "default": "Any other error.",
}
RETRY_AFTER = {
    "description": "Seconds after which the same request may do well.",
    "schema": {"type": "integer", "minimum": 0},
}


class SiteApp(FastAPI):
    """A FastAPI application that describes itself whole."""

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document (3.1.0)."""
        if self.openapi_schema is None:
            self.openapi_schema = describe(self)
        return self.openapi_schema


def operation_id(route: APIRoute) -> str:
    """Return a route's operation id: its handler's name."""
    return route.name


def describe(app: FastAPI) -> dict[str, Any]:
    """Return the whole document of an app."""
    document: dict[str, Any] = get_openapi(
        title=app.title,
        version=version("wardround"),
        description=app.description,
        routes=app.routes,
    )
    components = document.setdefault("components", {})
    components["securitySchemes"] = SCHEMES
    schemas = components.setdefault("schemas", {})
    schemas["Problem"] = Problem.model_json_schema(mode="serialization")
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for route in all_routes(list(app.routes)):
        if not isinstance(route, APIRoute) or not route.include_in_schema:
            continue
        for method in route.methods or ():
            operation = document["paths"].get(route.path_format, {}).get(method.lower())
            if operation is not None:
                _complete(operation, route)
    return document


def _complete(operation: dict[str, Any], route: APIRoute) -> None:
    wanted, responses = roles_wanted(route), operation["responses"]
    public = route.path in PUBLIC
    operation["security"] = [] if public else [{"key": []}, {"session": []}]
    if wanted:
        roles = sorted(str(role) for role in wanted)
        operation["x-wardround-roles"] = roles
        about = operation.get("description", "")
        operation["description"] = f"{about}\n\nRoles: {', '.join(roles)}.".strip()
    _set_media(operation, route)
    v2 = route.path_format.startswith("/v2")
    if v2:
        responses.pop("422", None)
        responses["default"] = _v2_error()
    else:
        for status, text in ERRORS.items():
            if not public or status in ("429", "default"):
                responses[status] = _problem(text)
        if public:
            responses.pop("422", None)
    for status in ("429", "503", "504"):
        if status in responses:
            responses[status].setdefault("headers", {})["Retry-After"] = RETRY_AFTER


def _set_media(operation: dict[str, Any], route: APIRoute) -> None:
    other = OTHER_MEDIA.get(route.path_format)
    if other is not None:
        media, schema = other
        for status, response in operation["responses"].items():
            if status.startswith("2"):
                response["content"] = {media: {"schema": schema}}


def _problem(text: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/problem+json": {"schema": PROBLEM}}}


def _v2_error() -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": ["error"],
        "properties": {"error": {"type": "string"}},
    }
    return {"description": "Any error.", "content": {"application/json": {"schema": schema}}}
