"""``/review/{case_id}/predict``, ``/explain``, ``/similar``: the model asked about a stored case.

The site reads its own file of the case. A picture that went to a browser and back may have been
made smaller for the screen; its answer would be of other pixels, and not be found with the case.
"""

from __future__ import annotations

from fastapi import APIRouter, Request

from client.access.caller import CallerDependency, Role, requires
from client.api.cases import CaseId
from client.api.errors import request_id_of
from client.api.explain import ExplainForm, ExplanationDocument, explain_image
from client.api.prediction import predict_image
from client.api.prediction_documents import PredictionDocument
from client.api.services import Services, ServicesDependency
from client.api.similar import SimilarDocument, similar_to

router = APIRouter(prefix="/review/{case_id}", tags=["review"])

CLINICIAN = [requires(Role.clinician)]


@router.post("/predict", summary="Predict a stored case", dependencies=CLINICIAN)
async def predict_case(
    request: Request, case_id: CaseId, services: ServicesDependency, caller: CallerDependency
) -> PredictionDocument:
    """Answer as `/predict` does to the stored picture; the answer is found with the case.

    Where readers judge blind, one who is yet to judge the case is not told: 409, ``reads-blind``.
    So for the explanation and the similar cases.
    """
    with services.admission():
        image = await _stored(services, case_id, caller.name)
        request_id = request_id_of(request)
        found = await predict_image(services, image, request_id=request_id, by=caller.name)
    await services.audit.viewed(case_id, "case", by=caller.name)
    return found


@router.post("/explain", summary="Explain the answer to a stored case", dependencies=CLINICIAN)
async def explain_case(
    request: Request,
    case_id: CaseId,
    services: ServicesDependency,
    caller: CallerDependency,
    form: ExplainForm | None = None,
) -> ExplanationDocument:
    """Answer as `/explain` does to the stored picture."""
    with services.admission():
        image = await _stored(services, case_id, caller.name)
        request_id = request_id_of(request)
        found = await explain_image(
            *(services, image, form or ExplainForm()), request_id=request_id, by=caller.name
        )
    await services.audit.viewed(case_id, "picture", by=caller.name)
    return ExplanationDocument.of(found, request_id=request_id)


@router.post("/similar", summary="Find confirmed cases like a stored one", dependencies=CLINICIAN)
async def similar_to_case(
    request: Request, case_id: CaseId, services: ServicesDependency, caller: CallerDependency
) -> SimilarDocument:
    """Answer as `/similar` does to the stored picture."""
    with services.admission():
        image = await _stored(services, case_id, caller.name)
        found = await similar_to(services, image, request_id=request_id_of(request))
    await services.audit.viewed(case_id, "case", by=caller.name)
    return found


async def _stored(services: Services, case_id: str, reader: str) -> bytes:
    services.holder.require()
    return await services.predictor.in_worker(services.review.whole_image, case_id, reader=reader)
