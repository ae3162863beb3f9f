"""What a warm runner saves: ``python -m tests.bench.round_time``.

Three sites, a tiny network and a few private steps, so that a round is nearly all overhead:
deployment mode with TLS, node authentication and process isolation. The same federation runs
once with Flower's own SuperExec at each site, which starts a Python that imports torch for
every message, and once with Wardround's runner, which imported it once and forks. Everything
else is the same in both, so the difference is that of the runner.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from rich.console import Console
from rich.table import Table

from client.policy import SitePolicy
from client.settings import SiteSettings
from common.recipe import Recipe
from deploy import local
from deploy.components import BIN, environment, site_runner
from deploy.local import LocalFederation
from deploy.processes import ProcessSpec
from server.registry.registry import Registry
from tests.client.rounds import TOY, fill

SITES = ("north", "south", "west")
TARGET = 0.5
Runner = Callable[[SiteSettings, Path], ProcessSpec]


@dataclass(frozen=True)
class Measured:
    """Seconds of each round after the first, which also prepares pixels and the self-test."""

    name: str
    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median round."""
        return statistics.median(self.rounds)


def stock_runner(settings: SiteSettings, logs: Path) -> ProcessSpec:
    """Describe Flower's own SuperExec at a site: one new Python for each message."""
    command = [
        str(BIN / "flower-superexec"),
        "--insecure",
        "--runtime-api-address", f"127.0.0.1:{settings.runtime_port}",
        "--superexec-auth-secret-file", str(settings.keys / "superexec.secret"),
    ]  # fmt: skip
    further = {
        "WARDROUND_SITE_FOLDER": str(settings.folder),
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.04",  # as often as Wardround's runner asks
    }
    name = f"{settings.name}-runner"
    return ProcessSpec(
        name=name,
        command=command,
        environment=environment(settings.data / "flower-runner", further),
        log=logs / f"{name}.log",
    )


def measure(name: str, runner: Runner, folder: Path, rounds: int) -> Measured:
    """Run one campaign with a runner, and return what its rounds took."""
    policy = SitePolicy(
        allowed_recipes=("toy",), release_evaluation=True, minimum_cell=1, declared_patients=25
    )
    with (
        mock.patch.object(local.components, "site_runner", runner),
        LocalFederation(
            folder, sites=SITES, task="toy", recipe=_recipe(), policy=policy
        ) as federation,
    ):
        federation.start()
        for site in SITES:
            fill(federation.site(site), 12, "train")
            fill(federation.site(site), 8, "holdout")
        federation.wait_ready()
        campaign = federation.start_campaign(_recipe(), rounds=rounds, epsilon=8.0)
        federation.wait_campaign(campaign, timeout=900)
        registry = Registry.open(federation.coordinator)
        try:
            found = registry.rounds(campaign)
        finally:
            registry.close()
    seconds = [
        (r.finished_at - r.started_at).total_seconds()
        for r in found
        if r.purpose == "train" and r.number > 1 and r.finished_at is not None
    ]
    return Measured(name, tuple(seconds))


def _recipe() -> Recipe:
    privacy = TOY.privacy.model_copy(update={"training": TOY.training})
    return TOY.model_copy(update={"privacy": privacy})


def main() -> int:
    """Measure, print, and return 1 if the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=6, help="training rounds of each campaign")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="wardround-bench-") as folder:
        before = measure("a Python for each message", stock_runner, Path(folder, "a"), given.rounds)
        after = measure("warm, forked", site_runner, Path(folder, "b"), given.rounds)
    table = Table(title=f"A round of {len(SITES)} sites, hardly any training")
    for heading in ("the site's runner", "median", "shortest", "longest", "ratio"):
        table.add_column(heading, justify="left" if heading.startswith("the") else "right")
    for found in (before, after):
        table.add_row(
            found.name,
            *(f"{s:.2f} s" for s in (found.median, min(found.rounds), max(found.rounds))),
            f"{found.median / before.median:.2f}",
        )
    Console().print(table)
    met = after.median <= TARGET * before.median
    Console().print(f"Target at most {TARGET:g} of the first: {'met' if met else 'MISSED'}.")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
