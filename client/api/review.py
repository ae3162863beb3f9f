"""``/review``: the queue of cases to be judged, opinions on them, their history and outcomes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Path, Query, Request, Response

from client.access.caller import CallerDependency, Role, requires
from client.access.idempotency import IdempotencyKey
from client.api.cases import CaseId, reader_of
from client.api.errors import request_id_of
from client.api.review_documents import (
    HistoryDocument,
    OpinionForm,
    OutcomesDocument,
    QueueDocument,
    ReviewDocument,
    WithdrawnDocument,
)
from client.api.services import ServicesDependency
from client.review.outcomes import OutcomeKind
from client.review.queue import QueueState
from common.errors import InputRefused

router = APIRouter(prefix="/review", tags=["review"])

CLINICIAN = [requires(Role.clinician)]
STAFF = [requires(Role.clinician, Role.auditor)]
MOST_A_PAGE = 200

FlagCode = Annotated[str, Path(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
Limit = Annotated[int, Query(ge=1, le=MOST_A_PAGE)]
Moment = Annotated[datetime | None, Query(description="With a time zone; of the answers.")]


@router.get("", summary="The cases to be judged", dependencies=CLINICIAN)
async def review_queue(
    services: ServicesDependency,
    caller: CallerDependency,
    state: QueueState | None = None,
    after: Annotated[str | None, Query(pattern=r"^[0-9a-zA-Z_-]{1,64}$")] = None,
    limit: Limit = 50,
) -> QueueDocument:
    """List cases that wait, are in conflict, held by a flag or disputed; the newest last.

    ``after`` is the ``next_after`` of the page before.
    """
    page = await services.predictor.in_worker(
        services.review.queue, caller.name, state=state, after=after, limit=limit
    )
    return QueueDocument.of(
        page,
        task=services.settings.task,
        classes=services.recipe().classes,
        readers=services.settings.review.readers,
    )


@router.get("/outcomes", summary="Confirmed cases beside the answers before", dependencies=STAFF)
async def review_outcomes(
    request: Request,
    services: ServicesDependency,
    version: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
    kind: OutcomeKind | None = None,
    since: Moment = None,
    until: Moment = None,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    limit: Limit = 50,
) -> OutcomesDocument:
    """Say which cases the model had right, missed or gave a false alarm on before confirmation.

    ``version``, ``since`` and ``until`` choose what is counted, ``kind`` only the rows.
    """
    for moment in (since, until):
        if moment is not None and moment.tzinfo is None:
            raise InputRefused("A time has no time zone.", code="request-invalid")
    recipe = services.recipe()
    found = await services.predictor.in_worker(
        services.review.outcomes, recipe, version=version, since=since, until=until
    )
    return OutcomesDocument.of(
        found,
        tuple(row for row in found.rows if kind in (None, row.kind)),
        offset=offset,
        limit=limit,
        task=services.settings.task,
        positive_classes=recipe.decision.positive_classes,
        request_id=request_id_of(request),
    )


@router.get("/{case_id}", summary="One case and what was said of it", dependencies=CLINICIAN)
async def review_case(
    request: Request, case_id: CaseId, services: ServicesDependency, caller: CallerDependency
) -> ReviewDocument:
    """Show opinions, the model's answers on the picture, flags and look-alikes."""
    recipe = services.recipe()
    found = await services.predictor.in_worker(services.review.detail, case_id, caller.name, recipe)
    await services.audit.viewed(case_id, "case", by=caller.name)
    return ReviewDocument.of(found, classes=recipe.classes, request_id=request_id_of(request))


@router.get(
    "/{case_id}/image",
    summary="The case's picture",
    dependencies=CLINICIAN,
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}},
)
async def case_image(
    case_id: CaseId,
    services: ServicesDependency,
    caller: CallerDependency,
    side: Annotated[int, Query(ge=32, le=2048, description="Pixels of the longer side.")] = 1024,
) -> Response:
    """Return the stored picture as PNG, made smaller where it is larger than ``side``."""
    with services.admission():
        png = await services.predictor.in_worker(services.review.image, case_id, side=side)
    await services.audit.viewed(case_id, "picture", by=caller.name)
    return Response(png, media_type="image/png", headers={"Cache-Control": "no-store"})


@router.post("/{case_id}/opinion", summary="Say what a case shows", dependencies=CLINICIAN)
async def give_opinion(
    request: Request,
    case_id: CaseId,
    body: OpinionForm,
    services: ServicesDependency,
    caller: CallerDependency,
    key: IdempotencyKey = None,
) -> ReviewDocument:
    """Agree, correct, or be unsure; the case is confirmed where the site's rules are content.

    With ``seen``, a case that changed since is not touched: 409, ``review-changed``. The same
    opinion again changes nothing.
    """
    recipe, reader = services.recipe(), reader_of(services, caller)
    parts = [case_id.encode(), body.model_dump_json().encode()]
    once = services.access.idempotency.once
    async with once(caller=caller.name, route="opinion", key=key, parts=parts) as answering:
        found = await services.predictor.in_worker(
            services.review.give, case_id, reader, body.submission(), recipe
        )
        await services.audit.viewed(case_id, "case", by=caller.name)
        request_id = request_id_of(request)
        document = ReviewDocument.of(found, classes=recipe.classes, request_id=request_id)
        return answering.keep(document, status=200)


@router.post("/{case_id}/flags/{code}/dismiss", summary="Set a flag aside", dependencies=CLINICIAN)
async def dismiss_flag(
    request: Request,
    case_id: CaseId,
    code: FlagCode,
    services: ServicesDependency,
    caller: CallerDependency,
) -> ReviewDocument:
    """Say that a flag was looked into; a case that it held goes on."""
    recipe, reader = services.recipe(), reader_of(services, caller)
    found = await services.predictor.in_worker(
        services.review.dismiss, case_id, code, reader, recipe
    )
    await services.audit.viewed(case_id, "case", by=caller.name)
    return ReviewDocument.of(found, classes=recipe.classes, request_id=request_id_of(request))


@router.post("/{case_id}/withdraw", summary="Withdraw a case", dependencies=CLINICIAN)
async def withdraw_case(
    request: Request, case_id: CaseId, services: ServicesDependency, caller: CallerDependency
) -> WithdrawnDocument:
    """Delete a case's picture and label for good; say which campaigns it may have reached.

    ``unfinished`` says what could not be done yet; it is tried again without being asked for.
    """
    # Apart from the images' pool: whatever it waits for, no prediction and no reader does.
    done = await anyio.to_thread.run_sync(services.review.withdraw, case_id, caller.name)
    return WithdrawnDocument.of(done, case_id=case_id, request_id=request_id_of(request))


@router.get("/{case_id}/history", summary="What happened to a case", dependencies=STAFF)
async def case_history(
    request: Request, case_id: CaseId, services: ServicesDependency, caller: CallerDependency
) -> HistoryDocument:
    """Tell a case's events, oldest first, and in whose pool it was: rounds and releases.

    Where readers judge blind, one who is yet to judge the case is not told: 409, ``reads-blind``.
    """
    reader = None if caller.may(Role.auditor) else caller.name
    found = await services.predictor.in_worker(services.review.history, case_id, reader=reader)
    await services.audit.viewed(case_id, "history", by=caller.name)
    return HistoryDocument.of(found, case_id=case_id, request_id=request_id_of(request))
