"""``POST /predict``."""

from __future__ import annotations

from fastapi import APIRouter, Request

from client.api.documents import PredictionDocument
from client.api.errors import request_id_of
from client.api.openapi import PREDICT_BODY
from client.api.services import ServicesDependency
from client.api.uploads import read_upload

router = APIRouter(tags=["prediction"])


@router.post("/predict", summary="Predict one image", openapi_extra=PREDICT_BODY)
async def predict(request: Request, services: ServicesDependency) -> PredictionDocument:
    """Answer with class probabilities and the threshold verdict of one model version."""
    with services.admission():
        services.holder.require()  # before the upload, so that nobody sends it for nothing
        upload = await read_upload(request, maximum_bytes=services.settings.maximum_upload_bytes)
        taken = await services.take_in(upload.image)
        prediction = await services.predictor.predict(
            taken.image, request_id=request_id_of(request)
        )
    services.metrics.prediction(version=prediction.manifest.version)
    return PredictionDocument.of(prediction, request_id=request_id_of(request))
