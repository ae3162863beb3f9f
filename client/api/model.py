"""``GET /model``."""

from __future__ import annotations

from fastapi import APIRouter

from client.access.caller import Role, requires
from client.api.documents import ModelDocument
from client.api.services import ServicesDependency

router = APIRouter(tags=["model"], dependencies=[requires(*Role)])


@router.get("/model", summary="The model that answers now")
async def model(services: ServicesDependency) -> ModelDocument:
    """Describe the released model that answers now; 503 while there is none."""
    return ModelDocument.of(services.holder.require())
