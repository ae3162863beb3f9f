"""``POST /similar``."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request

from client.access.caller import Role, requires
from client.api.documents import Document
from client.api.errors import request_id_of
from client.api.openapi import SIMILAR_BODY
from client.api.services import Services, ServicesDependency
from client.api.uploads import read_upload

router = APIRouter(tags=["prediction"], dependencies=[requires(Role.clinician)])


class SimilarCaseDocument(Document):
    """A confirmed case; ``distance`` is that of the cosine in the model's features, 0 to 2."""

    case_id: str
    label: str
    distance: float


class SimilarDocument(Document):
    """An answer of ``POST /similar``: at most five cases, nearest first.

    ``compared`` of the ``confirmed`` cases were looked at: fewer while the features of a new
    model are computed, and where the site has more than ``[explanation] similar_cases``.
    """

    request_id: str
    task: str
    model_version: int
    model_digest: str
    cases: tuple[SimilarCaseDocument, ...]
    compared: int
    confirmed: int


@router.post("/similar", summary="Find confirmed cases like an image", openapi_extra=SIMILAR_BODY)
async def similar(request: Request, services: ServicesDependency) -> SimilarDocument:
    """Answer with this site's confirmed cases that the model sees most like the image.

    ``GET /review/{case_id}/image`` gives the picture of each.
    """
    with services.admission():
        services.holder.require()
        upload = await read_upload(request, maximum_bytes=services.settings.maximum_upload_bytes)
        return await similar_to(services, upload.image, request_id=request_id_of(request))


async def similar_to(services: Services, image: bytes, *, request_id: str) -> SimilarDocument:
    """Find the confirmed cases most like one image, for which a place is held."""
    engine = services.holder.require()
    taken = await services.take_in(image)
    found = await asyncio.wrap_future(services.explanations.similar(engine, taken.image))
    return SimilarDocument(
        request_id=request_id,
        task=engine.manifest.task,
        model_version=engine.version,
        model_digest=engine.digest,
        cases=tuple(
            SimilarCaseDocument(case_id=c.case_id, label=c.label, distance=round(c.distance, 6))
            for c in found.cases
        ),
        compared=found.compared,
        confirmed=found.confirmed,
    )
