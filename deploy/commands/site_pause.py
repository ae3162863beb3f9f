"""`wardround site pause` and `wardround site resume`: the switch that stops all training."""

from __future__ import annotations

import getpass
import re
from pathlib import Path
from typing import Annotated

import typer
from pydantic import AwareDatetime, BaseModel, ConfigDict

from common.errors import PrivacyRefused
from deploy.commands.flags import AsJson, Site
from deploy.console import emit


class PauseDocument(BaseModel):
    """The document that ``--json`` prints; ``changed`` is False where it was so already.

    ``policy_paused`` is what ``policy.toml`` says itself: that stays until somebody edits it.
    """

    model_config = ConfigDict(frozen=True)

    site: str
    paused: bool
    changed: bool
    since: AwareDatetime | None = None
    by: str | None = None
    policy_paused: bool = False


def pause(
    site: Site = Path(),
    reason: Annotated[str, typer.Option(help="For the IT page; it stays at the site.")] = "",
    as_json: AsJson = False,
) -> None:
    """Answer no round from now on, until `wardround site resume`. Predictions go on.

    What is being trained is held back too. Written into the audit log.
    """
    from client.pause import current_pause
    from client.pause import pause as switch_on
    from client.settings import SiteSettings

    settings = SiteSettings.read(site)
    before = current_pause(settings)
    made = switch_on(settings, by=console_person(), reason=reason)
    document = PauseDocument(
        site=settings.name,
        paused=True,
        changed=before is None,
        since=made.since,
        by=made.by,
        policy_paused=_policy_paused(settings.policy),
    )
    said = f"Training {'is paused' if before is None else 'was paused already'}."
    if document.policy_paused:
        said += " policy.toml says paused = true, too."
    emit(document, as_json=as_json, show=lambda console: console.print(said))


def resume(
    site: Site = Path(),
    after_restore: Annotated[
        bool,
        typer.Option(
            "--after-restore",
            help="Of a restored site: what it spent since the backup is accounted for, and who "
            "withdrew since is withdrawn again.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Answer rounds again. Written into the audit log."""
    from client.pause import resume as switch_off
    from client.policy import SitePolicy
    from client.settings import SiteSettings

    settings = SiteSettings.read(site)
    changed = switch_off(settings, by=console_person(), after_restore=after_restore)
    policy_paused = SitePolicy.read(settings.policy).paused
    document = PauseDocument(
        site=settings.name, paused=policy_paused, changed=changed, policy_paused=policy_paused
    )
    said = "Training goes on." if changed else "Training was not paused by the switch."
    if policy_paused:
        said += " But policy.toml says paused = true: set it to false there."
    emit(document, as_json=as_json, show=lambda console: console.print(said))


def _policy_paused(policy: Path) -> bool:
    """Tell what the file says, the switch beside it apart; one that is no policy says nothing."""
    from client.policy import SitePolicy

    try:
        return SitePolicy.parse(policy.read_text("utf-8"), origin=str(policy)).paused
    except (OSError, UnicodeDecodeError, PrivacyRefused):
        return False  # nothing is answered without a policy; pausing must not fail for it


def console_person() -> str:
    """Return who types, in the letters that the audit log takes."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):
        name = "unknown"
    return "console-" + (re.sub(r"[^a-z0-9-]", "-", name.lower()).strip("-")[:40] or "unknown")
