"""Templates into answers: one place that knows what every page has in common."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from fastapi import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates

from common.errors import WardroundError
from server.api.authentication import Visitor
from server.pages import views

FOLDER = Path(__file__).parent.parent / "pages"
DONE: Mapping[str, str] = MappingProxyType(
    {
        "approved": "Approved. It is published next.",
        "published": "Approved, and published.",
        "refused": "Refused.",
        "rollout": "The rollout was signed.",
        "held": "Held. No further site takes it.",
        "rolled-back": "Rolled back: the old weights are published under a higher version.",
        "recorded": "Recorded. It is published as soon as the repository can be written.",
        "pause": "The campaign pauses when its round in progress has ended.",
        "resume": "The campaign goes on.",
        "cancel": "The campaign was cancelled.",
    }
)
"""What a page says after a form was acted on; the address has the key alone."""

templates = Jinja2Templates(FOLDER / "templates")
templates.env.globals.update(
    clock=views.clock, figure=views.figure, ago=views.ago, details=views.details
)
templates.env.trim_blocks = True
templates.env.lstrip_blocks = True


class PageFiles(StaticFiles):
    """The page's own script, style and icon; a browser asks again whether they changed."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        """Return a file, to be revalidated on each use."""
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers["Cache-Control"] = "no-cache"
        return response


page_files = PageFiles(directory=FOLDER / "static")


def draw(
    request: Request,
    template: str,
    visitor: Visitor | None,
    context: Mapping[str, object] = MappingProxyType({}),
    *,
    status: int = 200,
) -> Response:
    """Return a page; without a visitor it has no menu."""
    common = {
        "visitor": visitor,
        "can_decide": visitor is not None and visitor.account.may("approver"),
        "can_run": visitor is not None and visitor.account.may("operator"),
        "done": DONE.get(request.query_params.get("done", "")),
        "path": request.url.path,
        "drawn_from": getattr(request.state, "drawn_from", ""),
    }
    return templates.TemplateResponse(request, template, {**common, **context}, status_code=status)


def draw_error(request: Request, error: WardroundError, status: int) -> Response:
    """Return the page that says what went wrong, and what to do."""
    shown = error if status < 500 else None
    context = {"error": shown, "code": error.code, "status": status}
    return draw(request, "error.html", None, context, status=status)
