"""``GET /``: the clinician's page, and the files that it loads."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates

from client.access.caller import Role, requires
from client.api.health import readiness
from client.api.services import ServicesDependency

FOLDER = Path(__file__).parent.parent / "pages"

router = APIRouter(include_in_schema=False, dependencies=[requires(*Role)])
templates = Jinja2Templates(FOLDER / "templates")


class PageFiles(StaticFiles):
    """The page's own script, style and icon; a browser asks again whether they changed."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        """Return a file, to be revalidated on each use."""
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers["Cache-Control"] = "no-cache"
        return response


page_files = PageFiles(directory=FOLDER / "static")


@router.get("/", response_class=HTMLResponse)
async def clinician_page(request: Request, services: ServicesDependency) -> Response:
    """Return the page on which a clinician has an image read and a case confirmed."""
    engine = services.holder.current
    context = {
        "site": services.settings.name,
        "task": services.settings.task,
        "recipe": services.recipe(),
        "manifest": None if engine is None else engine.manifest,
        "personalised": engine is not None and engine.head_digest is not None,
        "alarms": readiness(services).alarms,
        "maximum_bytes": services.settings.maximum_upload_bytes,
    }
    return templates.TemplateResponse(request, "clinician.html", context)
