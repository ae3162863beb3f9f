"""Creating a trigger's campaign, in a process of its own: `python -m server.triggers.creation`.

Building the first model takes torch, which the coordinator's service should not carry for the
sake of a few campaigns a year.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from common.database import open_database
from common.errors import ProcessError, WardroundError
from server.registry.registry import Registry
from server.settings import CoordinatorSettings
from server.supervision import SupervisedTask
from server.triggers.evaluator import TriggerEvaluator
from server.triggers.polling import StatusPolls
from server.triggers.store import Trigger, TriggerStore

LOOK_SECONDS = 60.0
CREATION_SECONDS = 600.0


def create_triggered(settings: CoordinatorSettings, registry: Registry, trigger: Trigger) -> str:
    """Create a trigger's campaign, and let it go where the trigger says so; return its id."""
    from server.campaigns import create_campaign

    return create_campaign(
        settings,
        registry,
        trigger.recipe,
        rounds=trigger.plan.rounds,
        epsilon=trigger.plan.epsilon,
        auto_approve=trigger.plan.auto_approve,
        goes_at_once=trigger.starts,
    )


def create_poll(settings: CoordinatorSettings, registry: Registry, trigger: Trigger) -> str:
    """Create a campaign that only asks the sites about a trigger's task, and let it go."""
    from server.campaigns import create_campaign

    return create_campaign(
        settings,
        registry,
        trigger.recipe,
        rounds=trigger.plan.rounds,
        epsilon=trigger.plan.epsilon,
        only_preflight=True,
        goes_at_once=True,
    )


def create_in_child(settings: CoordinatorSettings, trigger: Trigger, *, asks: bool = False) -> str:
    """Create a trigger's campaign, or with ``asks`` the one that only asks, in a child process.

    Raises
    ------
    ProcessError
        If the child failed, with its error's code, or ``creation-died``.
    """
    command = [sys.executable, "-m", "server.triggers.creation"]
    command += ["--folder", str(settings.folder), "--trigger", trigger.name]
    command += ["--asks"] if asks else []
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=CREATION_SECONDS, check=False
        )
        said = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError) as error:
        raise ProcessError(
            f"The campaign of trigger {trigger.name} was not created.",
            action="Create one by hand, to see why.",
            code="creation-died",
        ) from error
    if "campaign" not in said:
        raise ProcessError(str(said["error"]), code=str(said["code"]))
    return str(said["campaign"])


def evaluator(settings: CoordinatorSettings) -> TriggerEvaluator:
    """Return an evaluator on a coordinator's database, whose schema is up to date."""
    store = TriggerStore(open_database(settings.database))
    return TriggerEvaluator(store, lambda trigger: create_in_child(settings, trigger))


def trigger_task(settings: CoordinatorSettings) -> SupervisedTask:
    """Return the coordinator's task that looks at the triggers, not yet started."""
    looking = evaluator(settings)
    asking = StatusPolls(
        looking.store, lambda trigger: create_in_child(settings, trigger, asks=True)
    )

    def look() -> None:
        looking.look()
        asking.look()

    return SupervisedTask("triggers", look, every_seconds=LOOK_SECONDS)


def main() -> int:
    """Create one campaign; print its id, or the error, as a line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m server.triggers.creation", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--trigger", required=True)
    parser.add_argument("--asks", action="store_true", help="only ask the sites how they are")
    options = parser.parse_args()
    try:
        settings = CoordinatorSettings.read(options.folder)
        registry = Registry.open(settings)
        trigger = TriggerStore(open_database(settings.database)).get(options.trigger)
        create = create_poll if options.asks else create_triggered
        campaign = create(settings, registry, trigger)
    except WardroundError as error:
        sys.stdout.write(json.dumps({"code": error.code, "error": error.line()}) + "\n")
        return 1
    sys.stdout.write(json.dumps({"campaign": campaign}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
