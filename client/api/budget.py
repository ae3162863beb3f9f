"""``GET /budget``: what the site has spent of its privacy, as `wardround site budget` says it."""

from __future__ import annotations

import asyncio
import threading

from fastapi import APIRouter

from client.access.caller import requires
from client.access.roles import Role
from client.api.services import ServicesDependency
from client.policy import SitePolicy
from client.privacy.budget import LedgerState, read_budget
from client.privacy.ledger import PrivacyLedger
from client.settings import SiteSettings

router = APIRouter(tags=["privacy"], dependencies=[requires(Role.it, Role.auditor)])

_turn = threading.Lock()  # the tighter (PRV) bound takes seconds of a core where rounds are many


@router.get("/budget", summary="What was spent of the privacy budget, and what is left")
async def budget(services: ServicesDependency) -> LedgerState:
    """Recompute the ledger's state from its lines; `chain_whole` says whether all are there."""
    return await asyncio.to_thread(_read, services.settings)


def _read(settings: SiteSettings) -> LedgerState:
    with _turn, PrivacyLedger.open(settings) as ledger:
        return read_budget(settings, SitePolicy.read(settings.policy), ledger)
