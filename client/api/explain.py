"""``POST /explain``."""

from __future__ import annotations

import asyncio
import base64
from typing import Annotated

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field, ValidationError

from client.access.caller import Caller, CallerDependency, Role, requires
from client.api.documents import Document
from client.api.errors import form_error, request_id_of
from client.api.openapi import EXPLAIN_BODY
from client.api.services import Services, ServicesDependency
from client.api.uploads import read_upload
from client.explanation.explanation import Explanation
from client.explanation.methods import Method

router = APIRouter(tags=["prediction"], dependencies=[requires(Role.clinician)])

PNG = "image/png"


class ExplainForm(Document):
    """The text fields beside the image in ``POST /explain``; an empty one counts as absent."""

    method: Method = Method.grad_cam
    class_name: Annotated[str | None, Field(alias="class", min_length=1, max_length=64)] = None


class RegionDocument(Document):
    """A part of the picture, and the share of the heat that lies there; left is the picture's."""

    region: str
    share: float


class ExplanationDocument(Document):
    """An answer of ``POST /explain``.

    ``overlay_png`` is base64. ``regions`` says in words where what speaks for the class lies,
    ``region_shares`` in numbers that sum to 1, none where nothing speaks for it. ``probability``
    is the answer's for the class, before any calibration. ``milliseconds`` leaves waiting
    out.
    """

    request_id: str
    task: str
    method: Method
    class_name: Annotated[str, Field(serialization_alias="class", validation_alias="class")]
    probability: float
    model_version: int
    model_digest: str
    head_digest: str | None = None
    together_with: tuple[int, ...] = ()
    overlay_png: str
    regions: str
    region_shares: tuple[RegionDocument, ...]
    milliseconds: float

    @classmethod
    def of(cls, found: Explanation, *, request_id: str) -> ExplanationDocument:
        """Write an explanation down."""
        shares = [{"region": s.region, "share": round(s.share, 4)} for s in found.shares]
        return cls.model_validate(
            {
                "request_id": request_id,
                "task": found.manifest.task,
                "method": found.method,
                "class": found.class_name,
                "probability": found.probability,
                "model_version": found.manifest.version,
                "model_digest": found.manifest.model_digest,
                "head_digest": found.head_digest,
                "together_with": found.together_with,
                "overlay_png": base64.b64encode(found.overlay).decode(),
                "regions": found.words,
                "region_shares": shares,
                "milliseconds": round(found.seconds * 1000, 3),
            }
        )


@router.post(
    "/explain",
    summary="Show what in an image the answer rests on",
    response_model=ExplanationDocument,
    responses={200: {"content": {PNG: {"schema": {"type": "string", "format": "binary"}}}}},
    openapi_extra=EXPLAIN_BODY,
)
async def explain(
    request: Request, services: ServicesDependency, caller: CallerDependency
) -> Response:
    """Answer with a heat map drawn on the image, and in words; ``Accept: image/png``: the picture.

    Explanations are made beside the predictions and after them, one at a time of a kind.
    """
    found = await _explained(request, services, caller)
    if _wants_png(request.headers.get("accept", "")):
        headers = {"X-Model-Version": str(found.manifest.version)}
        return Response(found.overlay, media_type=PNG, headers=headers)
    document = ExplanationDocument.of(found, request_id=request_id_of(request))
    return JSONResponse(document.model_dump(mode="json", by_alias=True))


async def explain_image(
    services: Services, image: bytes, form: ExplainForm, *, request_id: str, by: str
) -> Explanation:
    """Explain the answer to one image, for which its caller, ``by``, holds a place.

    Raises
    ------
    ImageRefused, InputRefused, Busy, ReleaseError, ModelError
        As `Services.take_in` and `Explanations.explain`.
    """
    engine = services.holder.require()
    taken = await services.take_in(image)
    future = services.explanations.explain(
        engine, taken.image, method=form.method, class_name=form.class_name
    )
    found = await asyncio.wrap_future(future)
    await services.audit.prediction(
        found.manifest, request_id, head_digest=found.head_digest, by=by
    )
    return found


async def _explained(request: Request, services: Services, caller: Caller) -> Explanation:
    with services.admission():
        services.holder.require()  # before the upload, so that nobody sends it for nothing
        upload = await read_upload(request, maximum_bytes=services.settings.maximum_upload_bytes)
        try:
            form = ExplainForm.model_validate(upload.fields)
        except ValidationError as error:
            raise form_error(error) from error
        request_id = request_id_of(request)
        return await explain_image(
            services, upload.image, form, request_id=request_id, by=caller.name
        )


def _wants_png(accept: str) -> bool:
    """Tell whether PNG is asked for by name, and JSON is not."""
    kinds = {part.split(";")[0].strip().lower() for part in accept.split(",")}
    return PNG in kinds and "application/json" not in kinds
