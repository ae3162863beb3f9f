"""``python -m deploy.keeper --folder COORDINATOR``: campaigns go on by themselves.

A ServerApp that died does not come back: Flower ends its run. The keeper sees that nobody drives
a campaign that should be driven, and starts a new Flower run for it, which takes the campaign
where it was. It waits longer each time, and gives up where ten runs in a row finish no round of
training: what dies after each scoring would else use up the scorings that its sites allow.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock

from common.errors import ProcessError, RoundFailed, WardroundError
from deploy import flower_run
from server.registry.campaign_states import DRIVEN, ENDED
from server.registry.records import Campaign
from server.registry.registry import Registry
from server.rounds.driver import campaign_folder, driving, is_driven
from server.rounds.kept_answers import remove_answers
from server.settings import CoordinatorSettings

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
LAUNCH_SECONDS = 45.0
"""A Flower run that was started has this long to take its campaign; then another is started."""
LONGEST_PAUSE_SECONDS = 30.0
MOST_LAUNCHES = 10

StartRun = Callable[[CoordinatorSettings, str], int]


class Keeper:
    """Looks at all campaigns, again and again.

    Parameters
    ----------
    settings : CoordinatorSettings
        Of a coordinator whose SuperLink runs on this machine.
    registry : Registry
        Its registry.
    start : callable, optional
        Starts a Flower run; for tests.
    monotonic : callable, optional
        Seconds that never go back; for tests.
    """

    def __init__(
        self,
        settings: CoordinatorSettings,
        registry: Registry,
        *,
        start: StartRun = flower_run.start_run,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._start = start
        self._monotonic = monotonic
        self._due: dict[tuple[str, int], float] = {}

    def look(self) -> None:
        """Look once at every campaign, and do what is due."""
        for campaign in self._registry.campaigns():
            if campaign.state in DRIVEN:
                self._interrupt_if_dead(campaign)
            elif campaign.state == "interrupted" or (
                campaign.state == "created" and campaign.launches
            ):
                self._launch_if_due(campaign)
            elif campaign.state in ENDED:
                remove_answers(campaign_folder(self._settings, campaign.id))

    def _interrupt_if_dead(self, campaign: Campaign) -> None:
        folder = campaign_folder(self._settings, campaign.id)
        if is_driven(folder):
            return
        try:
            with driving(folder):  # nobody can take it meanwhile
                self._registry.moves.interrupt(
                    campaign.id, "Its ServerApp was killed.", code="driver-gone"
                )
        except RoundFailed:
            return
        log.warning("event=campaign-interrupted campaign=%s", campaign.id)

    def _launch_if_due(self, campaign: Campaign) -> None:
        if is_driven(campaign_folder(self._settings, campaign.id)):
            return  # it is about to take it
        if campaign.launched_at is not None:
            waited = (datetime.now(UTC) - campaign.launched_at).total_seconds()
            if abs(waited) < LAUNCH_SECONDS:  # a launch to come is a clock that was set back
                return
        if campaign.launches >= MOST_LAUNCHES:
            self._registry.moves.fail(
                campaign.id,
                f"{campaign.launches} Flower runs in a row finished no round of training. "
                f"The last one: {campaign.failure or 'never began'}",
                code="died-too-often",
            )
            return
        key = (campaign.id, campaign.launches)
        pause = min(LONGEST_PAUSE_SECONDS, 2.0 ** (campaign.launches - 1) - 1)
        due = self._due.setdefault(key, self._monotonic() + max(0.0, pause))
        if self._monotonic() < due:
            return
        try:
            self._start(self._settings, campaign.id)
        except ProcessError as error:  # the SuperLink is down; it will be back
            self._due[key] = self._monotonic() + 2 * POLL_SECONDS
            log.warning("event=launch-failed campaign=%s reason=%s", campaign.id, error.what)
            return
        del self._due[key]
        self._registry.moves.note_launch(campaign.id)
        log.info("event=campaign-launched campaign=%s", campaign.id)


def main(arguments: Sequence[str] | None = None) -> None:
    """Keep a coordinator's campaigns until stopped; a second keeper waits for the first's end."""
    parser = argparse.ArgumentParser(prog="python -m deploy.keeper", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="coordinator folder")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    settings = CoordinatorSettings.read(options.folder)
    with keeper_lock(settings):
        keeper = Keeper(settings, Registry.open(settings))
        while True:
            try:
                keeper.look()
            except WardroundError as error:  # a busy database; the campaigns must not wait for us
                log.error("event=keeper-failed code=%s", error.code)
            time.sleep(POLL_SECONDS)


def keeper_lock(settings: CoordinatorSettings) -> FileLock:
    """Return the lock that a coordinator's one keeper holds."""
    return FileLock(settings.data / "keeper.lock", is_singleton=False)


if __name__ == "__main__":
    main()
