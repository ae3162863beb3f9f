"""A round's overhead beside a stock Flower application's: ``python -m tests.bench.round_overhead``.

Three sites, efficientnet_b0 with a head of two classes, hardly any training. The stock application
(`tests.bench.peers.stock_flower`) is FedAvg as Flower's template has it: train and evaluate, no
TLS, no local work at all. Wardround runs in deployment mode: TLS, node authentication, a signed
plan, its audit logs, one training step, and a holdout scored in every round.

Bytes are those of the application's payload, both ways: for the stock application the bytes of all
arrays in messages; for Wardround all that a message's records hold, headers and receipts too
(`common.wire.content_of`). What Flower and TLS wrap around that is counted for neither. The first
round, in which the whole model travels and caches are filled, is told apart.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from client.policy import SitePolicy
from common.compression import Compression
from common.recipe import LocalTraining, ModelSpec, Recipe
from deploy.local import LocalFederation
from server.registry.registry import Registry
from tests.bench.peers.stock_flower import run_stock_flower
from tests.client.rounds import TOY, fill

SITES = ("north", "south", "west")
TIME_TARGET = 1 / 6
BYTES_TARGET = 1 / 4
_REQUEST = re.compile(r"request campaign=\S+ round=(\d+) site=\S+ step=\S+ bytes=(\d+)")


@dataclass(frozen=True)
class Rounds:
    """Seconds, and bytes a site, of each training round from the first."""

    name: str
    seconds: tuple[float, ...]
    bytes: tuple[float, ...]

    @property
    def usual_seconds(self) -> float:
        """The median of all rounds but the first, where there are others."""
        return statistics.median(self.seconds[1:] or self.seconds)

    @property
    def usual_bytes(self) -> float:
        """The mean of all rounds but the first, where there are others."""
        return statistics.mean(self.bytes[1:] or self.bytes)


def measure(folder: Path, *, rounds: int, compression: Compression) -> Rounds:
    """Run one campaign of a real federation on this machine."""
    policy = SitePolicy(
        allowed_recipes=("toy",),
        release_evaluation=True,
        minimum_cell=1,
        declared_patients=25,
        allow_without_privacy=True,
    )
    recipe = bench_recipe(compression)
    with LocalFederation(
        folder, sites=SITES, task="toy", recipe=recipe, policy=policy
    ) as federation:
        federation.start()
        for site in SITES:
            fill(federation.site(site), 12, "train")
            fill(federation.site(site), 8, "holdout")
        federation.wait_ready()
        campaign = federation.start_campaign(recipe, rounds=rounds, private=False)
        federation.wait_campaign(campaign, timeout=900)
        registry = Registry.open(federation.coordinator)
        try:
            found = [r for r in registry.rounds(campaign) if r.purpose == "train"]
            told = registry.contributions(campaign)
        finally:
            registry.close()
    text = (folder / "logs" / "serverapp.log").read_text()
    down = [(int(m[1]), int(m[2])) for m in _REQUEST.finditer(text)]
    seconds = [
        (r.finished_at - r.started_at).total_seconds() for r in found if r.finished_at is not None
    ]
    numbers = [r.number for r in found]
    carried = [
        sum(size for n, size in down if n == number)
        + sum(c.bytes for c in told if c.round == number)
        for number in numbers
    ]
    return Rounds("Wardround", tuple(seconds), tuple(size / len(SITES) for size in carried))


def bench_recipe(compression: Compression) -> Recipe:
    """Return the toy task with efficientnet_b0 and one step of training."""
    federation = TOY.federation.model_copy(update={"compression": compression, "quorum": 3})
    changes = {
        "model": ModelSpec(architecture="efficientnet_b0"),
        "training": LocalTraining(local_steps=1, sampling_rate=0.1),
        "federation": federation,
    }
    return TOY.model_copy(update=changes)


def report(ours: Rounds, stock: Rounds) -> bool:
    """Print both and their ratios; tell whether the targets are met."""
    table = Table(title=f"A round of {len(SITES)} sites, efficientnet_b0, hardly any training")
    for heading in ("", "first round", "a round after", "ratio", "MB first", "MB after", "ratio "):
        table.add_column(heading, justify="right" if heading else "left")
    time = ours.usual_seconds / stock.usual_seconds
    size = ours.usual_bytes / stock.usual_bytes
    for found, ratios in ((stock, (1.0, 1.0)), (ours, (time, size))):
        table.add_row(
            found.name,
            f"{found.seconds[0]:.1f} s",
            f"{found.usual_seconds:.2f} s",
            f"{ratios[0]:.3f}",
            f"{found.bytes[0] / 1e6:.1f}",
            f"{found.usual_bytes / 1e6:.1f}",
            f"{ratios[1]:.3f}",
        )
    console = Console()
    console.print(table)
    for what, ratio, target in (("time", time, TIME_TARGET), ("bytes", size, BYTES_TARGET)):
        verdict = "met" if ratio <= target else "MISSED"
        console.print(f"Target for {what}, at most {target:.3f} of the stock app's: {verdict}.")
    return time <= TIME_TARGET and size <= BYTES_TARGET


def main() -> int:
    """Measure both, print, and return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=6, help="of Wardround's campaign")
    parser.add_argument("--stock-rounds", type=int, default=3, help="of the stock application")
    parser.add_argument("--compression", default="int8", choices=("none", "fp16", "int8", "top-k"))
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="wardround-bench-") as folder:
        ours = measure(Path(folder, "a"), rounds=given.rounds, compression=given.compression)
        peer = run_stock_flower(Path(folder, "b"), rounds=given.stock_rounds)
    return 0 if report(ours, Rounds("stock Flower", peer.seconds, peer.bytes)) else 1


if __name__ == "__main__":
    sys.exit(main())
