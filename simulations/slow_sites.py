"""Sites that take longer than others, for simulations alone: an old machine, a thin line."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.app import site_settings
from common.errors import ConfigurationError


@dataclass(frozen=True)
class SlowSite:
    """A site, by name, and the seconds that it takes longer over each training round."""

    site: str
    seconds: float


def parse_slow_site(text: str) -> SlowSite:
    """Read ``SITE=SECONDS``.

    Raises
    ------
    ConfigurationError
        With code ``slow-site``.
    """
    site, _, told = text.partition("=")
    try:
        seconds = float(told)
    except ValueError:
        seconds = math.nan
    if not site or not 0 <= seconds <= 3600:
        raise ConfigurationError(
            f"{text!r} names no site with its seconds.",
            action="Write SITE=SECONDS, of 0 to 3600.",
            code="slow-site",
        )
    return SlowSite(site, seconds)


def check_slow_sites(slow: Iterable[SlowSite], sites: Iterable[str]) -> None:
    """Refuse a slow site that there is not.

    Raises
    ------
    ConfigurationError
        With code ``slow-site``.
    """
    known = sorted(sites)
    strangers = sorted({one.site for one in slow} - set(known))
    if strangers:
        raise ConfigurationError(
            f"There is no hospital {strangers[0]!r} among the slow ones.",
            action=f"The hospitals are {', '.join(known)}.",
            code="slow-site",
        )


def slowed_app(app: ClientApp, slow: Iterable[SlowSite]) -> ClientApp:
    """Return the ClientApp whose training replies come later where a site is slow."""
    waits = {one.site: one.seconds for one in slow}
    slowed = ClientApp()

    def answer(message: Message, context: Context) -> Message:
        reply = app(message, context)
        time.sleep(waits.get(site_settings(context).name, 0.0))
        return reply

    slowed.train()(answer)
    # Scoring is as quick as ever: it is the rounds that a slow site holds up.
    slowed.evaluate()(app)
    slowed.query()(app)
    return slowed
