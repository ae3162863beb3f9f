"""Open Inference Protocol v2 over HTTP: the served model under its task's name.

Health, metadata and ``infer``, as the specification's REST part says. One tensor goes in: ``image``
(BYTES, encoded files in base64) or ``pixels`` (UINT8, prepared as the recipe says). Out come
``probabilities`` (FP32), ``positive_probability`` (FP32) and ``verdict`` (BYTES).

Source: https://github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from importlib.metadata import version
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Path, Request, Response

from client.access.caller import CallerDependency, requires
from client.access.roles import Role
from client.api import protocol_v2_tensors as tensors
from client.api.errors import request_id_of
from client.api.protocol_v2_documents import (
    InferenceRequest,
    InferenceResponse,
    ModelMetadata,
    ModelReady,
    ServerLive,
    ServerMetadata,
    ServerReady,
)
from client.api.protocol_v2_openapi import INFER_BODY, V2_ERRORS
from client.api.services import Services, ServicesDependency
from client.api.uploads import FORM_ALLOWANCE_BYTES, read_body
from client.inference.engine import Images, InferenceEngine
from client.inference.prediction import Prediction
from common.errors import NotFound

router = APIRouter(prefix="/v2", tags=["open inference protocol"], responses=V2_ERRORS)

ModelName = Annotated[str, Path(max_length=64, description="The site's task.")]
Version = Annotated[str, Path(max_length=16, description="The served release's version.")]
MODELS = "/models/{model}"
VERSIONS = "/models/{model}/versions/{version}"
_everybody = [requires(*Role)]
_clinician = [requires(Role.clinician)]


@router.get("/health/live", summary="Server live")
async def server_live() -> ServerLive:
    """Say that the process answers."""
    return ServerLive()


@router.get("/health/ready", summary="Server ready", responses={503: {"model": ServerReady}})
async def server_ready(response: Response, services: ServicesDependency) -> ServerReady:
    """Say whether a model answers; 503 while there is none."""
    ready = services.holder.current is not None
    response.status_code = 200 if ready else 503
    return ServerReady(ready=ready)


@router.get("", summary="Server metadata")
async def server_metadata() -> ServerMetadata:
    """Describe the server; it has no extensions."""
    return ServerMetadata(name="wardround", version=version("wardround"), extensions=())


@router.get(MODELS, summary="Model metadata", dependencies=_everybody)
async def model_metadata(model: ModelName, services: ServicesDependency) -> ModelMetadata:
    """Describe the model that answers now."""
    return _metadata(_engine(services, model, None))


@router.get(VERSIONS, summary="Metadata of a version", dependencies=_everybody)
async def version_metadata(
    model: ModelName, version: Version, services: ServicesDependency
) -> ModelMetadata:
    """Describe a version; only the one that answers now is there."""
    return _metadata(_engine(services, model, version))


@router.get(f"{MODELS}/ready", summary="Model ready", dependencies=_everybody)
async def model_ready(model: ModelName, services: ServicesDependency) -> ModelReady:
    """Say that the model answers; 404 or 503 where it does not."""
    _engine(services, model, None)
    return ModelReady(name=model)


@router.get(f"{VERSIONS}/ready", summary="Version ready", dependencies=_everybody)
async def version_ready(
    model: ModelName, version: Version, services: ServicesDependency
) -> ModelReady:
    """Say that a version answers; 404 or 503 where it does not."""
    _engine(services, model, version)
    return ModelReady(name=model)


@router.post(
    f"{MODELS}/infer", summary="Inference", dependencies=_clinician, openapi_extra=INFER_BODY
)
async def infer(
    request: Request, model: ModelName, services: ServicesDependency, caller: CallerDependency
) -> InferenceResponse:
    """Predict the images of one tensor; all of them are answered by one version, or none."""
    return await _infer(request, services, model, None, by=caller.name)


@router.post(
    f"{VERSIONS}/infer",
    summary="Inference by a version",
    dependencies=_clinician,
    openapi_extra=INFER_BODY,
)
async def infer_version(
    request: Request,
    model: ModelName,
    version: Version,
    services: ServicesDependency,
    caller: CallerDependency,
) -> InferenceResponse:
    """As without the version; 404 where another one answers."""
    return await _infer(request, services, model, version, by=caller.name)


async def _infer(
    request: Request, services: Services, model: str, version: str | None, *, by: str
) -> InferenceResponse:
    with ExitStack() as places:
        places.enter_context(services.admission())
        engine = _engine(services, model, version)
        limit = services.settings.maximum_upload_bytes * 4 // 3 + FORM_ALLOWANCE_BYTES  # base64
        body = await read_body(request, maximum_bytes=limit)
        tensors.refuse_crowded(body, engine.recipe.image.size)
        asked = await asyncio.to_thread(InferenceRequest.read, body)
        wanted = tensors.wanted_outputs(asked)
        images = await asyncio.to_thread(tensors.images_of, asked, engine.recipe.image.size)
        for _ in images[1:]:
            places.enter_context(services.admission())
        predictions = await _predict(services, images, request_id_of(request), by=by)
    manifest = tensors.one_manifest(predictions, version)
    return InferenceResponse(
        model_name=model,
        model_version=str(manifest.version),
        id=asked.id,
        outputs=tensors.outputs_of(predictions, wanted),
    )


async def _predict(
    services: Services, images: list[bytes | Images], request_id: str, *, by: str
) -> list[Prediction]:
    async def one(index: int, image: bytes | Images) -> Prediction:
        if not isinstance(image, np.ndarray):
            image = (await services.take_in(image)).image
        found = await services.predictor.predict(image, request_id=f"{request_id}-{index}", by=by)
        services.metrics.prediction(version=found.manifest.version)
        return found

    found = await asyncio.gather(
        *(one(index, image) for index, image in enumerate(images)), return_exceptions=True
    )
    for result in found:
        if isinstance(result, BaseException):
            raise result
    return [result for result in found if not isinstance(result, BaseException)]


def _engine(services: Services, model: str, version: str | None) -> InferenceEngine:
    task = services.settings.task
    if model != task:
        raise NotFound("There is no model of that name here.", action=f"Ask for {task}.")
    engine = services.holder.require()
    if version is not None and version != str(engine.version):
        raise NotFound(
            "That version does not answer here.", action=f"Version {engine.version} does."
        )
    return engine


def _metadata(engine: InferenceEngine) -> ModelMetadata:
    platforms = {"torch": "pytorch_torch", "onnxruntime": "onnxruntime_onnx"}
    return ModelMetadata(
        name=engine.manifest.task,
        versions=(str(engine.version),),
        platform=platforms[engine.runtime],
        inputs=tensors.input_tensors(engine.recipe.image.size),
        outputs=tensors.output_tensors(len(engine.manifest.classes)),
    )
