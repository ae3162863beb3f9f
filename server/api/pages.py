"""The coordinator's page: what any account may look at."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse
from starlette.responses import Response

from common.release import ReleaseManifest
from server.api.authentication import Viewer
from server.api.drawing import draw
from server.api.services import Services
from server.pages import views
from server.registry.campaign_states import TRANSITIONS
from server.registry.seen import seen_candidate, seen_release

router = APIRouter(include_in_schema=False)


@router.get("/")
def home(_visitor: Viewer) -> Response:
    """Lead to the sites."""
    return RedirectResponse("/page/sites", 303)


@router.get("/page/sites")
def sites(request: Request, services: Services, visitor: Viewer) -> Response:
    """Show who is there, what each serves, whose certificate ends, what each has spent."""
    context = {"sites": views.site_views(services), "tasks": services.registry.rollouts.tasks()}
    return draw(request, "sites.html", visitor, context)


@router.get("/page/campaigns")
def campaigns(
    request: Request,
    services: Services,
    visitor: Viewer,
    every: Annotated[bool, Query(alias="all")] = False,
) -> Response:
    """Show the campaigns that train; with ``all``, those that only asked, too."""
    found = services.registry.campaigns(kind=None if every else "training")
    return draw(request, "campaigns.html", visitor, {"campaigns": found, "every": every})


@router.get("/page/campaigns/{identifier}")
def campaign(identifier: str, request: Request, services: Services, visitor: Viewer) -> Response:
    """Show one campaign: timeline, metrics, epsilon, what came of it."""
    view = views.campaign_view(services, identifier)
    context = {"view": view, "moves": TRANSITIONS[view.campaign.state]}
    return draw(request, "campaign.html", visitor, context)


@router.get("/page/releases")
def releases(request: Request, services: Services, visitor: Viewer) -> Response:
    """Show what waits for a decision, what is released, and what was refused."""
    candidates = services.registry.candidates()
    context = {
        "waiting": [c for c in candidates if c.state in ("waiting", "approved")],
        "refused": [c for c in candidates if c.state == "refused"],
        "releases": views.release_views(services),
    }
    return draw(request, "releases.html", visitor, context)


@router.get("/page/releases/{version}")
def release(version: int, request: Request, services: Services, visitor: Viewer) -> Response:
    """Show one release: where it comes from, who serves it, and what can be done with it."""
    view = views.release_view(services, version)
    newest = max(
        (r.version for r in services.registry.releases(task=view.release.task)), default=version
    )
    manifest: ReleaseManifest = view.release.manifest
    change = services.registry.rollouts.rollout_change(view.release) if view.open else None
    context = {
        "view": view,
        "newest": newest,
        "manifest": manifest,
        "change": change,
        "seen": seen_release(view.release, change),
        "sites": [site.name for site in services.registry.sites()],
    }
    return draw(request, "release.html", visitor, context)


@router.get("/page/candidates/{identifier}")
def candidate(identifier: str, request: Request, services: Services, visitor: Viewer) -> Response:
    """Show one candidate beside the champion, with every verdict of the gate."""
    found = services.registry.candidate(identifier)
    change = services.registry.rollouts.champion_change(found)
    context = {
        "candidate": found,
        "change": change,
        "seen": seen_candidate(found, change),
        "sites": [site.name for site in services.registry.sites()],
        "ring": services.settings.canary_sites,
    }
    return draw(request, "candidate.html", visitor, context)


@router.get("/page/audit")
def audit(request: Request, services: Services, visitor: Viewer) -> Response:
    """Show the newest lines of the audit log."""
    return draw(request, "audit.html", visitor, {"lines": views.audit_tail(services)})
