"""Making one report in a process of its own: `python -m server.reports.making`.

The bootstrap and the drawing take seconds of a processor, which the coordinator's service should
not take from the sites that pull a release at this moment.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from common.errors import ProcessError, WardroundError
from server.registry.registry import Registry
from server.reports.content import release_report
from server.reports.store import LOOK_SECONDS, ReportKeeper, report_paths, write_report
from server.settings import CoordinatorSettings
from server.supervision import SupervisedTask

MAKING_SECONDS = 600.0


def make_in_child(settings: CoordinatorSettings, version: int) -> None:
    """Make a release's report into its place, in a child process.

    Raises
    ------
    ProcessError
        If the child failed, with its error's code, or ``report-died``.
    """
    command = [sys.executable, "-m", "server.reports.making"]
    command += ["--folder", str(settings.folder), "--version", str(version)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=MAKING_SECONDS, check=False
        )
        if done.returncode == 0:
            return
        said = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError) as error:
        raise ProcessError(
            f"The report of release {version} was not made.",
            action=f"`wardround coordinator release report {version}` says why.",
            code="report-died",
        ) from error
    raise ProcessError(str(said["error"]), code=str(said["code"]))


def report_task(settings: CoordinatorSettings, registry: Registry) -> SupervisedTask:
    """Return the coordinator's task that keeps the reports, not yet started."""
    keeper = ReportKeeper(settings, registry, make=lambda version: make_in_child(settings, version))

    def keep() -> None:
        keeper.keep()

    return SupervisedTask("reports", keep, every_seconds=LOOK_SECONDS)


def main() -> int:
    """Make one report; print an error as a line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m server.reports.making", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--version", type=int, required=True)
    options = parser.parse_args()
    try:
        settings = CoordinatorSettings.read(options.folder)
        registry = Registry.open(settings)
        folder = report_paths(settings, options.version).html.parent
        write_report(release_report(registry, options.version), folder)
    except WardroundError as error:
        sys.stdout.write(json.dumps({"code": error.code, "error": error.line()}) + "\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
