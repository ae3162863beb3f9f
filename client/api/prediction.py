"""``POST /predict``."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from client.access.caller import Caller, CallerDependency, Role, requires
from client.api.errors import request_id_of
from client.api.openapi import PREDICT_BODY
from client.api.prediction_documents import PredictionDocument
from client.api.services import Services, ServicesDependency
from client.api.uploads import read_upload
from client.dicom.answer import Answer
from client.dicom.fhir import fhir_bundle

router = APIRouter(tags=["prediction"], dependencies=[requires(Role.clinician)])


@router.post("/predict", summary="Predict one image", openapi_extra=PREDICT_BODY)
async def predict(
    request: Request, services: ServicesDependency, caller: CallerDependency
) -> PredictionDocument:
    """Answer with class probabilities and the threshold verdict of one model version."""
    return await _predicted(request, services, caller)


@router.post("/predict/fhir", summary="Predict one image, as FHIR R4", openapi_extra=PREDICT_BODY)
async def predict_fhir(
    request: Request, services: ServicesDependency, caller: CallerDependency
) -> Response:
    """Answer with a Bundle of DiagnosticReport (preliminary), RiskAssessment and Device."""
    document = await _predicted(request, services, caller)
    answer = Answer.model_validate(document.model_dump())
    bundle = fhir_bundle(answer, site=services.settings.name)
    return JSONResponse(bundle, media_type="application/fhir+json")


async def _predicted(request: Request, services: Services, caller: Caller) -> PredictionDocument:
    with services.admission():
        services.holder.require()  # before the upload, so that nobody sends it for nothing
        upload = await read_upload(request, maximum_bytes=services.settings.maximum_upload_bytes)
        request_id = request_id_of(request)
        return await predict_image(services, upload.image, request_id=request_id, by=caller.name)


async def predict_image(
    services: Services, image: bytes, *, request_id: str, by: str
) -> PredictionDocument:
    """Predict one uploaded image, for which its caller, ``by``, holds a place.

    Raises
    ------
    ImageRefused, Busy, ReleaseError, ModelError
        As `Services.take_in` and `Predictor.predict`.
    """
    taken = await services.take_in(image)
    prediction = await services.predictor.predict(taken.image, request_id=request_id, by=by)
    services.metrics.prediction(version=prediction.manifest.version)
    return PredictionDocument.of(prediction, request_id=request_id)
