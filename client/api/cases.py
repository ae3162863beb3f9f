"""``/cases``: store an image as a case, confirm its label, count what is stored."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from pydantic import ValidationError

from client.access.caller import Caller, CallerDependency, NotAllowed, Role, requires
from client.access.idempotency import IdempotencyKey, form_parts
from client.api.documents import CaseDocument, CaseForm, CountsDocument, LabelConfirmation
from client.api.errors import form_error, request_id_of
from client.api.openapi import CASE_BODY
from client.api.services import Services, ServicesDependency
from client.api.uploads import Upload, read_upload
from client.cases.accepted_image import accept_image
from client.cases.case import NewCase
from client.cases.status import check_label
from client.cases.store import Case, DuplicateCase
from client.dicom.intake import TakenIn
from client.review.opinions import SeenAnswer

router = APIRouter(prefix="/cases", tags=["cases"])

CaseId = Annotated[str, Path(pattern=r"^[0-9a-zA-Z_-]{1,64}$")]


@router.post(
    "",
    status_code=201,
    summary="Store a case",
    openapi_extra=CASE_BODY,
    responses={200: {"model": CaseDocument, "description": "This case is stored already."}},
    dependencies=[requires(Role.clinician)],
)
async def store_case(
    request: Request,
    response: Response,
    services: ServicesDependency,
    caller: CallerDependency,
    key: IdempotencyKey = None,
) -> CaseDocument:
    """Keep an image as a case of this site's task.

    Without a label it waits. A label counts as the caller's opinion: the case is confirmed, or
    waits for a second reader where two must agree. The same image of the same patient again
    gives the stored case, status 200, so that a lost answer can be asked for again.
    """
    with services.admission():
        upload = await read_upload(request, maximum_bytes=services.settings.maximum_upload_bytes)
        if "label" in upload.fields:
            reader_of(services, caller)
        parts = form_parts(upload.image, upload.fields)
        once = services.access.idempotency.once
        async with once(caller=caller.name, route="cases", key=key, parts=parts) as answering:
            document, status = await _store(request, services, upload, caller.name)
            response.status_code = status
            return answering.keep(document, status=status)


async def _store(
    request: Request, services: Services, upload: Upload, reader: str
) -> tuple[CaseDocument, int]:
    form, status = _form(upload), 201
    try:
        taken = await services.take_in(upload.image)
        case = await services.predictor.in_worker(_add, services, taken, form, reader)
    except DuplicateCase as duplicate:
        status, case = 200, duplicate.case
    flags = await services.predictor.in_worker(services.review.flag_codes, case.id)
    return CaseDocument.of(case, request_id=request_id_of(request), flags=flags), status


@router.post(
    "/{case_id}/confirm",
    summary="Confirm a case's label",
    dependencies=[requires(Role.clinician)],
)
async def confirm_case(
    request: Request,
    case_id: CaseId,
    body: LabelConfirmation,
    services: ServicesDependency,
    caller: CallerDependency,
) -> CaseDocument:
    """Say what the case shows; only confirmed cases are trained on.

    It counts as the caller's opinion: where two readers must agree the case may wait on.
    """
    classes, reader = services.recipe().classes, reader_of(services, caller)
    case = await services.predictor.in_worker(
        services.review.confirm, case_id, body.label, classes=classes, reader=reader
    )
    return CaseDocument.of(case, request_id=request_id_of(request))


@router.get("", summary="Count the stored cases", dependencies=[requires(*Role)])
async def count_cases(services: ServicesDependency) -> CountsDocument:
    """Count cases by what became of them, without anything that names one."""
    task = services.settings.task
    counts = await services.predictor.in_worker(services.store.counts, task)
    return CountsDocument(task=task, counts=counts)


def reader_of(services: Services, caller: Caller) -> str:
    """Return whose opinion a caller's is.

    Raises
    ------
    NotAllowed
        With code ``reader-is-a-key``, where two people must agree and this is a program's key:
        one person with a session and a key would be both of them.
    """
    if services.settings.review.readers > 1 and not caller.person:
        raise NotAllowed(
            "Two people must agree at this site, and a key is nobody in particular.",
            meaning="Nothing was kept.",
            action="Sign in to judge a case; send images without a label.",
            code="reader-is-a-key",
        )
    return caller.name


def _form(upload: Upload) -> CaseForm:
    try:
        return CaseForm.model_validate(upload.fields)
    except ValidationError as error:
        raise form_error(error) from error


def _add(services: Services, taken: TakenIn, form: CaseForm, reader: str) -> Case:
    if form.label is not None:
        check_label(form.label, services.recipe().classes)
    image = accept_image(taken.image, look_for_writing=True)
    labelled = form.label is not None
    answer = services.review.newest_answer(image.pixels_digest) if labelled else None
    new = NewCase(
        image=image,
        task=services.settings.task,
        patient_id=form.patient_id or taken.patient_id,
        label=form.label,
        source="http" if taken.header is None else "dicom",
        age=taken.age if form.age is None else form.age,
        sex=form.sex or taken.sex,
        reader=reader,
        saw=SeenAnswer.of(answer),
        warnings=() if answer is None else answer.warnings,
        flags=() if taken.header is None else taken.header.flags,
    )
    return services.store.add_new(new)
