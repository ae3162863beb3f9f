"""``POST /predict/batch``: several images in one request, each with an answer of its own."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from contextlib import ExitStack
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import Field

from client.access.caller import CallerDependency, requires
from client.access.idempotency import IdempotencyKey
from client.access.roles import Role
from client.api.documents import Document, Problem
from client.api.errors import problem_of, request_id_of
from client.api.openapi import BATCH_BODY
from client.api.prediction import predict_image
from client.api.prediction_documents import PredictionDocument
from client.api.services import Services, ServicesDependency
from client.api.uploads import read_images
from common.errors import Busy, WardroundError

router = APIRouter(tags=["prediction"], dependencies=[requires(Role.clinician)])
log = logging.getLogger(__name__)

MAXIMUM_IMAGES = 16
PASSING = frozenset({429, 500, 503, 504})
"""Statuses of what is wrong with the site just now, not with the image."""
LARGEST_OF_ALL = 4
"""All images together may be as large as so many of the largest that is accepted."""


class BatchAnswer(Document):
    """What became of one image: a prediction, or a problem with its own status."""

    index: Annotated[int, Field(ge=0, lt=MAXIMUM_IMAGES)]
    prediction: PredictionDocument | None
    problem: Problem | None


class BatchDocument(Document):
    """An answer of ``POST /predict/batch``; ``answers`` are in the order of the images."""

    request_id: str
    answers: tuple[BatchAnswer, ...]


@router.post("/predict/batch", summary="Predict up to 16 images", openapi_extra=BATCH_BODY)
async def predict_batch(
    request: Request,
    services: ServicesDependency,
    caller: CallerDependency,
    key: IdempotencyKey = None,
) -> BatchDocument:
    """Answer each image as `/predict` does, or say what is wrong with it.

    Each image takes one of the places that uploads have; an image for which there is none has a
    problem with status 429, and the others are answered.
    """
    request_id = request_id_of(request)
    largest = services.settings.maximum_upload_bytes
    with ExitStack() as places:
        places.enter_context(services.admission())
        services.holder.require()
        held = 1

        def take_place(received: int) -> None:
            nonlocal held
            while held * largest < received:  # a place bounds the memory of one largest image
                places.enter_context(services.admission())
                held += 1

        images = await read_images(
            request,
            maximum_bytes=largest,
            maximum_images=MAXIMUM_IMAGES,
            maximum_total=LARGEST_OF_ALL * largest,
            on_bytes=take_place,
        )
        while held < len(images):
            try:
                places.enter_context(services.admission())
            except Busy:
                break
            held += 1
        parts = [hashlib.sha256(image).digest() for image in images]
        once = services.access.idempotency.once
        asked = once(caller=caller.name, route="batch", key=key, parts=parts, harmless=True)
        async with asked as answering:
            answers = await asyncio.gather(
                *(
                    _answer(
                        *(services, image, index, f"{request_id}-{index}"),
                        placed=index < held,
                        by=caller.name,
                    )
                    for index, image in enumerate(images)
                )
            )
            document = BatchDocument(request_id=request_id, answers=tuple(answers))
            if any(a.problem is not None and a.problem.status in PASSING for a in answers):
                return document  # sent again, it may be answered better
            return answering.keep(document, status=200)


async def _answer(
    services: Services, image: bytes, index: int, request_id: str, *, placed: bool, by: str
) -> BatchAnswer:
    try:
        if not placed:
            raise Busy(
                "This site handles as many images as it can.", action="Try again in a moment."
            )
        found = await predict_image(services, image, request_id=request_id, by=by)
    except WardroundError as error:
        log.info("event=refused code=%s request=%s", error.code, request_id)
        problem = problem_of(error, request_id=request_id)
        return BatchAnswer(index=index, prediction=None, problem=problem)
    return BatchAnswer(index=index, prediction=found, problem=None)
