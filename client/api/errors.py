"""Errors to HTTP, once: which class or code is which status, and the problem document."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from client.access.caller import NotAllowed, NotSignedIn
from client.access.idempotency import Replayed
from client.api.documents import Problem
from common.errors import (
    Busy,
    CaseRefused,
    ImageRefused,
    InputRefused,
    ModelError,
    NotFound,
    ReleaseError,
    StoreError,
    TooMany,
    WardroundError,
)

log = logging.getLogger(__name__)

RETRY_SECONDS = 5
KEPT_BY_V2 = (
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.MISDIRECTED_REQUEST,
)
RETRY = (
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)

STATUS_BY_CODE: Mapping[str, HTTPStatus] = {
    "upload-too-large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "image-too-large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "dicom-too-large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "dicom-unreadable": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "dicom-multi-frame": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "dicom-transfer-syntax": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "dicom-decoder-unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    "upload-slow": HTTPStatus.REQUEST_TIMEOUT,
    "not-multipart": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "image-unsupported": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "image-unreadable": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "image-multi-frame": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "cross-origin": HTTPStatus.FORBIDDEN,
    "restored-site": HTTPStatus.CONFLICT,
    "unknown-host": HTTPStatus.MISDIRECTED_REQUEST,
    "closing": HTTPStatus.SERVICE_UNAVAILABLE,
    "queue-deadline": HTTPStatus.GATEWAY_TIMEOUT,
    "explanation-deadline": HTTPStatus.GATEWAY_TIMEOUT,
    "explanation-unsupported": HTTPStatus.UNPROCESSABLE_ENTITY,
    "label-unknown": HTTPStatus.UNPROCESSABLE_ENTITY,
    "opinion-incomplete": HTTPStatus.UNPROCESSABLE_ENTITY,
}
# The first that fits counts, so a narrower class stands before its parent.
STATUS_BY_CLASS: tuple[tuple[type[WardroundError], HTTPStatus], ...] = (
    (ImageRefused, HTTPStatus.UNPROCESSABLE_ENTITY),
    (CaseRefused, HTTPStatus.CONFLICT),
    (InputRefused, HTTPStatus.UNPROCESSABLE_ENTITY),
    (NotFound, HTTPStatus.NOT_FOUND),
    (NotSignedIn, HTTPStatus.UNAUTHORIZED),
    (NotAllowed, HTTPStatus.FORBIDDEN),
    (Busy, HTTPStatus.TOO_MANY_REQUESTS),
    (ReleaseError, HTTPStatus.SERVICE_UNAVAILABLE),
    (ModelError, HTTPStatus.SERVICE_UNAVAILABLE),
    (StoreError, HTTPStatus.SERVICE_UNAVAILABLE),
)


def status_of(error: WardroundError) -> HTTPStatus:
    """Return the HTTP status of an error; 500 for what has no business at this edge."""
    if error.code in STATUS_BY_CODE:
        return STATUS_BY_CODE[error.code]
    fitting = (status for kind, status in STATUS_BY_CLASS if isinstance(error, kind))
    return next(fitting, HTTPStatus.INTERNAL_SERVER_ERROR)


def problem_response(error: WardroundError, *, request_id: str) -> Response:
    """Return the problem document of an error, with ``Retry-After`` where a retry may do well."""
    problem = problem_of(error, request_id=request_id)
    return _response(problem, _headers(HTTPStatus(problem.status), error))


def problem_of(error: WardroundError, *, request_id: str) -> Problem:
    """Write an error down; of one that has no business here, nothing but its code."""
    status = status_of(error)
    if status is HTTPStatus.INTERNAL_SERVER_ERROR:
        error = WardroundError(
            "The service failed.", action="Give hospital IT the request id.", code=error.code
        )
    return Problem(
        status=status,
        code=error.code,
        what=error.what,
        meaning=error.meaning,
        action=error.action,
        request_id=request_id,
    )


async def refuse(error: WardroundError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request with an error, where no handler of the app can."""
    response = answer_of(error, path=scope["path"], request_id=scope["state"]["request_id"])
    await response(scope, receive, send)


def answer_of(error: WardroundError, *, path: str, request_id: str) -> Response:
    """Return an error as its part of the interface wants it: below ``/v2`` as that protocol does.

    There an error is ``{"error": text}`` (Open Inference Protocol, REST, error objects), and what
    is wrong with a request's own content is status 400.
    """
    if not _speaks_v2(path):
        return problem_response(error, request_id=request_id)
    status = status_of(error)
    if status is HTTPStatus.INTERNAL_SERVER_ERROR:
        error = WardroundError("The service failed.", action="Give hospital IT the request id.")
    elif isinstance(error, InputRefused) and status not in KEPT_BY_V2:
        status = HTTPStatus.BAD_REQUEST
    return JSONResponse({"error": error.line()}, status, headers=_headers(status, error))


def _speaks_v2(path: str) -> bool:
    return path == "/v2" or path.startswith("/v2/")


def install_error_handlers(app: FastAPI) -> None:
    """Map domain, validation and routing errors of an app; `middleware` catches what is left."""

    @app.exception_handler(WardroundError)
    async def domain(request: Request, error: WardroundError) -> Response:
        log.info("event=refused code=%s request=%s", error.code, request_id_of(request))
        if isinstance(error, NotSignedIn) and _shows_pages(request):
            return RedirectResponse(f"/sign-in?next={quote(request.url.path, safe='')}", 303)
        return answer_of(error, path=request.url.path, request_id=request_id_of(request))

    @app.exception_handler(Replayed)
    async def again(_request: Request, known: Replayed) -> Response:
        kept = known.answer
        headers = {"Idempotency-Replayed": "true"}
        return Response(kept.body, kept.status, media_type=kept.media_type, headers=headers)

    @app.exception_handler(RequestValidationError)
    async def validation(request: Request, error: RequestValidationError) -> Response:
        # FastAPI's own answer echoes the input, which may name a patient.
        refused = field_error([(_place(e), e["msg"]) for e in error.errors()])
        return answer_of(refused, path=request.url.path, request_id=request_id_of(request))

    @app.exception_handler(HTTPException)
    async def routing(request: Request, error: HTTPException) -> Response:
        if _speaks_v2(request.url.path):
            said = {"error": f"{HTTPStatus(error.status_code).phrase}."}
            return JSONResponse(said, error.status_code, headers=error.headers)
        problem = Problem(
            status=error.status_code,
            code=HTTPStatus(error.status_code).phrase.lower().replace(" ", "-"),
            what=f"{HTTPStatus(error.status_code).phrase}.",
            action="See /openapi.json for what this service answers.",
            request_id=request_id_of(request),
        )
        return _response(problem, dict(error.headers or {}))


def request_id_of(request: Request) -> str:
    """Return the id that `middleware` gave the request."""
    return str(request.scope["state"]["request_id"])


def _shows_pages(request: Request) -> bool:
    """Tell whether a person's browser asks for a page, rather than a script for data."""
    return request.method == "GET" and "text/html" in request.headers.get("accept", "")


def form_error(error: ValidationError) -> InputRefused:
    """Return a form's faults by field name, without what was typed in."""
    return field_error([(_place(e), e["msg"]) for e in error.errors(include_input=False)])


def field_error(faults: list[tuple[tuple[int | str, ...], str]]) -> InputRefused:
    """Return wrong fields as one error."""
    said = "; ".join(
        f"{'.'.join(str(part) for part in place)[:64]}: {message}" for place, message in faults[:5]
    )
    return InputRefused(f"A field is not as expected: {said}.", code="request-invalid")


def _place(fault: Mapping[str, Any]) -> tuple[int | str, ...]:
    """Return where a fault lies; a field's name that the caller made up may name a patient."""
    place: tuple[int | str, ...] = tuple(fault["loc"])
    return (*place[:-1], "(unknown)") if fault["type"] == "extra_forbidden" else place


def _headers(status: HTTPStatus, error: WardroundError) -> dict[str, str]:
    if status in RETRY:
        seconds = error.retry_seconds if isinstance(error, TooMany) else RETRY_SECONDS
        return {"Retry-After": str(math.ceil(seconds))}
    if status is HTTPStatus.UNAUTHORIZED:
        return {"WWW-Authenticate": 'Bearer realm="wardround"'}  # RFC 6750, 3
    if status in (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.REQUEST_TIMEOUT):
        return {"Connection": "close"}  # the rest of the body is not wanted
    return {}


def _response(problem: Problem, headers: Mapping[str, str]) -> Response:
    return Response(
        problem.model_dump_json(),
        problem.status,
        media_type="application/problem+json",
        headers=dict(headers),
    )
