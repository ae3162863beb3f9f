"""The drift of predictions as a site may tell it upwards: one of three levels, and only if asked.

It is computed in the site's runner, apart from the service, from the answers that the service kept
and the profile that it wrote.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from client.answers.log import AnswerLog
from client.monitoring.drift import Model, drift
from client.reading.profile import SiteProfile
from client.settings import SiteSettings
from common.database import open_database

log = logging.getLogger(__name__)


def prediction_drift_level(
    settings: SiteSettings, task: str, classes: tuple[str, ...], *, fewest: int, now: float
) -> int | None:
    """Return 0 (none that chance does not explain), 1 (some) or 2 (much); None where it is open.

    Parameters
    ----------
    settings : SiteSettings
        The site.
    task : str
        The recipe's name.
    classes : tuple of str
        The recipe's.
    fewest : int
        With fewer images nothing is told, nor with fewer than the site's own monitoring asks for.
    now : float
        UTC seconds since 1970.

    Raises
    ------
    StoreError
        If the answers cannot be read.
    """
    since = datetime.fromtimestamp(now, UTC) - timedelta(days=settings.monitoring.days)
    engine = open_database(settings.database)
    try:
        answers = AnswerLog(engine).answers(task, since=since, limit=settings.monitoring.window)
    finally:
        engine.dispose()
    if not answers:
        return None
    newest = answers[-1]
    profile = _profile(settings, newest.model_digest, newest.head_digest)
    if profile is None or profile.drift is None:
        return None
    model = Model(newest.model_digest, newest.head_digest, classes)
    least = max(fewest, settings.monitoring.fewest)
    kinds = drift(profile.drift, answers, model, fewest=least)
    return next(kind.level for kind in kinds if kind.kind == "predictions")


def _profile(settings: SiteSettings, digest: str, head: str | None) -> SiteProfile | None:
    """Return the profile of the model that answered last; None where there is none to be read."""
    for path in sorted((settings.data / "profiles").glob("*.json")):
        try:
            found = SiteProfile.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            log.warning("event=profile-unreadable type=%s", type(error).__name__)
            continue
        if (found.model_digest, found.head_digest) == (digest, head):
            return found
    return None
