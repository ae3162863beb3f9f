"""The pause switch: hospital IT stops all training at once, and it stays so until they say go on.

It is a file beside ``policy.toml``; that it is there is what counts, whatever stands in it, so a
damaged one still pauses. `client.policy.SitePolicy.read` looks for it each time, before a plan is
answered and once more before the answer leaves. ``paused = true`` in ``policy.toml`` is the other
way to pause, and takes an editor to undo.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from client.audit import open_site_audit
from client.settings import SiteSettings
from common.audit_entries import TrainingPaused, TrainingResumed
from common.errors import InputRefused, StoreError
from common.folders import sync_folder, write_private

FILE = "paused.json"
UNKNOWN = "unknown"
RESTORED_BY = "console-restore"
"""Who set the switch where a site was made of a backup: that one is not taken away lightly."""


class Pause(BaseModel):
    """Since when training is paused, by whom, and why; the reason stays at the site."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    since: AwareDatetime
    by: Annotated[str, Field(max_length=64)] = UNKNOWN
    reason: Annotated[str, Field(max_length=200)] = ""


def switch_of(policy: Path) -> Path:
    """Return where the switch of a ``policy.toml`` lies."""
    return policy.with_name(FILE)


def is_paused(switch: Path) -> bool:
    """Tell whether the switch is there; one that cannot be looked for counts as there."""
    try:
        os.lstat(switch)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def current_pause(settings: SiteSettings) -> Pause | None:
    """Return what the switch says; None where training is not paused by it."""
    switch = switch_of(settings.policy)
    if not is_paused(switch):
        return None
    try:
        return Pause.model_validate_json(switch.read_bytes())
    except FileNotFoundError:
        return None  # switched off just now
    except (OSError, ValidationError):
        return Pause(since=datetime.fromtimestamp(0, UTC))


def pause(settings: SiteSettings, *, by: str, reason: str = "") -> Pause:
    """Pause training and evaluation, durably; paused already, what was said before stays.

    Parameters
    ----------
    settings : SiteSettings
        The site.
    by : str
        An account's name.
    reason : str
        For the page; it is in no log and never leaves.

    Raises
    ------
    StoreError
        If the switch could not be written, or it was and the audit log could not.
    """
    known = current_pause(settings)
    if known is not None:
        return known
    made = Pause(since=datetime.now(UTC).replace(microsecond=0), by=by, reason=reason.strip()[:200])
    # The switch first: training stops even where the log cannot be written.
    write_private(switch_of(settings.policy), made.model_dump_json().encode())
    with open_site_audit(settings) as log:
        log.append(TrainingPaused(by=by))
    return made


def resume(settings: SiteSettings, *, by: str, after_restore: bool = False) -> bool:
    """Let training go on; returns False where the switch was not set.

    Parameters
    ----------
    settings : SiteSettings
        The site.
    by : str
        An account's name, or who is at the console.
    after_restore : bool
        Somebody has seen to it that a restored site's ledger does not forget what was spent.

    Raises
    ------
    InputRefused
        With code ``restored-site``, if the site was restored from a backup, without
        ``after_restore``.
    StoreError
        If it could not be written down, or the switch not removed: then it stays paused.
    """
    switch = switch_of(settings.policy)
    if not is_paused(switch):
        return False
    known = current_pause(settings)
    if known is not None and known.by == RESTORED_BY and not after_restore:
        raise InputRefused(
            "This site was restored from a backup.",
            meaning="Its ledger does not know what was spent since, and would spend it again; "
            "patients who withdrew since are back.",
            action="Deal with both (docs/pages.md, Backup and restore), then say "
            "`wardround site resume --after-restore` on the site's own machine.",
            code="restored-site",
        )
    with open_site_audit(settings) as log:
        log.append(TrainingResumed(by=by))
    try:
        switch.unlink(missing_ok=True)
        sync_folder(switch.parent)
    except OSError as error:
        raise StoreError(
            f"{switch} cannot be removed ({error.strerror or type(error).__name__}).",
            meaning="Training stays paused.",
            action="Remove the file.",
        ) from error
    return True
