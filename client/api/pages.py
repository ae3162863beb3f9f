"""The site's pages, and the files that they load."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates

from client.access.caller import Caller, CallerDependency, Role, requires
from client.api.health import readiness
from client.api.services import Services, ServicesDependency
from client.pages.frame import links_for, may_open
from client.pages.release_notes import release_notes
from client.site_recipes import own_recipe
from common.errors import RecipeError
from common.recipe import Recipe, load_recipe, shipped_recipes

FOLDER = Path(__file__).parent.parent / "pages"

router = APIRouter(include_in_schema=False, dependencies=[requires(*Role)])
templates = Jinja2Templates(FOLDER / "templates")


def clock(moment: datetime | None) -> str:
    """Return a time as the pages write it."""
    return "–" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def amount(size: float) -> str:
    """Return bytes in the unit that reads best."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


templates.env.filters["clock"] = clock
templates.env.filters["amount"] = amount


class PageFiles(StaticFiles):
    """The page's own script, style and icon; a browser asks again whether they changed."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        """Return a file, to be revalidated on each use."""
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers["Cache-Control"] = "no-cache"
        return response


page_files = PageFiles(directory=FOLDER / "static")


@router.get("/", response_class=HTMLResponse)
async def clinician_page(
    request: Request, services: ServicesDependency, caller: CallerDependency
) -> Response:
    """Return the page on which a clinician has an image read and says what it shows.

    Who is no clinician is led to the first page that they may open.
    """
    if not may_open(caller, "/"):
        pages = links_for(caller)
        return RedirectResponse(pages[0].address, 303) if pages else _forbidden(request, services)
    more = {"blinded": services.settings.review.blinded}
    return _page(request, services, caller, "clinician.html", more)


@router.get("/review-queue", response_class=HTMLResponse)
async def review_page(
    request: Request, services: ServicesDependency, caller: CallerDependency
) -> Response:
    """Return the page on which readers judge the cases that wait."""
    more = {
        "blinded": services.settings.review.blinded,
        "readers": services.settings.review.readers,
    }
    return _page(request, services, caller, "review.html", more)


@router.get("/outcomes", response_class=HTMLResponse)
async def outcomes_page(
    request: Request, services: ServicesDependency, caller: CallerDependency
) -> Response:
    """Return the audit view: what the model had right, missed, or gave a false alarm on."""
    more = {"sees_images": caller.may(Role.clinician)}
    return _page(request, services, caller, "outcomes.html", more)


@router.get("/it", response_class=HTMLResponse)
async def it_page(
    request: Request, services: ServicesDependency, caller: CallerDependency
) -> Response:
    """Return hospital IT's page."""
    if not may_open(caller, "/it"):
        return _forbidden(request, services, caller)
    state = await asyncio.to_thread(services.status.read, services.alarms())
    more = {"state": state, "decides": caller.may(Role.it)}
    return _page(request, services, caller, "it.html", more)


@router.get("/model-version", response_class=HTMLResponse)
async def model_page(
    request: Request, services: ServicesDependency, caller: CallerDependency
) -> Response:
    """Return what changed with the model version that answers."""
    engine = services.holder.current
    recipe = _words(services)
    notes = None if engine is None or recipe is None else release_notes(engine.manifest, recipe)
    profile = None if engine is None else engine.profile
    point = None if profile is None else profile.operating_point
    more = {"notes": notes, "point": point}
    return _page(request, services, caller, "model.html", more, anybody=True)


def _page(
    request: Request,
    services: Services,
    caller: Caller,
    name: str,
    more: Mapping[str, object],
    *,
    anybody: bool = False,
) -> Response:
    if not anybody and not may_open(caller, request.url.path):
        return _forbidden(request, services, caller)
    engine, recipe = services.holder.current, _words(services)
    classes = () if recipe is None else recipe.classes
    context = {
        **_frame(request, services, caller),
        "recipe": recipe,
        "classes": classes,
        "display": {} if recipe is None else {c: recipe.display_name(c) for c in classes},
        "positive": () if recipe is None else recipe.decision.positive_classes,
        "manifest": None if engine is None else engine.manifest,
        "personalised": engine is not None and engine.head_digest is not None,
        "alarms": readiness(services).alarms,
        "maximum_bytes": services.settings.maximum_upload_bytes,
        **more,
    }
    return templates.TemplateResponse(request, name, context)


def _frame(request: Request, services: Services, caller: Caller | None) -> dict[str, object]:
    return {
        "site": services.settings.name,
        "task": services.settings.task,
        "path": request.url.path,
        "pages": () if caller is None else links_for(caller),
        "caller": caller,
        "signed_in": caller is not None and not services.access.open,
    }


def _forbidden(request: Request, services: Services, caller: Caller | None = None) -> Response:
    context = _frame(request, services, caller)
    return templates.TemplateResponse(request, "forbidden.html", context, status_code=403)


def _words(services: Services) -> Recipe | None:
    """Return the served recipe with the words for its classes that this site itself has for them.

    A release brings words along, but what a class is called at the bedside is not the
    coordinator's to change: without words of the site's, or of what is installed, it has its code.
    """
    task = services.settings.task
    try:
        own = own_recipe(services.settings, task)
    except RecipeError:
        own = load_recipe(task) if task in shipped_recipes() else None
    engine = services.holder.current
    if engine is None:
        return own
    names = () if own is None else tuple(p for p in own.display if p[0] in engine.recipe.classes)
    return engine.recipe.model_copy(update={"display": names})
