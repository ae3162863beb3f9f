"""`wardround site personalise`: a head of the site's own on the release that it holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from common.errors import ConfigurationError
from deploy.commands.flags import AsJson, Site
from deploy.console import emit, progress

if TYPE_CHECKING:
    from client.personalisation.trial import Personalised


def personalise(
    site: Site = Path(),
    layers: Annotated[
        bool,
        typer.Option(
            "--layers", help="Instead: the layers that stayed here in the release's campaign."
        ),
    ] = False,
    off: Annotated[bool, typer.Option("--off", help="Remove it: the release answers.")] = False,
    as_json: AsJson = False,
) -> None:
    """Fit the release's head to the site's own patients, and serve it only if it is better here.

    Judged on the site's own holdout. It never leaves the site, and goes when a new release comes
    or a patient withdraws.
    """
    from client.personalisation.personalise import personalise as fit
    from client.personalisation.personalise import stop_personalising
    from client.settings import SiteSettings

    if layers and off:
        raise ConfigurationError(
            "--layers and --off exclude each other.",
            action="Give --off alone; the release answers then.",
            code="usage",
        )
    settings = SiteSettings.read(site)
    if off:
        document = stop_personalising(settings)
    elif layers:
        from client.personalisation.own_layers import serve_own_layers

        document = serve_own_layers(settings)
    else:
        with progress(quiet=as_json) as display:
            task = display.add_task("Fitting", total=None)
            document = fit(
                settings,
                on_fit=lambda done, total: display.update(task, completed=done, total=total),
            )
    emit(document, as_json=as_json, show=lambda console: _show(document, console))


def _show(document: Personalised, console: Console) -> None:
    if document.release is None:
        what = "The site's own head is removed" if document.removed else "There was no own head"
        console.print(f"{what}; the release answers.", highlight=False)
        return
    own = "own layers" if document.what == "layers" else "own head"
    console.print(
        f"Macro AUROC on the site's holdout: release {document.released_auroc:.3f}, {own} "
        f"{document.personal_auroc:.3f}; difference in "
        f"[{document.difference_lower:+.3f}, {document.difference_upper:+.3f}] (95 %). Positive "
        f"cases found of {document.positives}: {document.released_found} and "
        f"{document.personal_found}.",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    if document.serving == "personal":
        console.print(f"Release v{document.release} answers with the site's {own} from now on.")
    else:
        console.print("It is not better by the rule: the plain release answers.")
