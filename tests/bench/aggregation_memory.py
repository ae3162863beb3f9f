"""Peak memory of aggregating 64 updates: ``python -m tests.bench.aggregation_memory``.

Each update is 28 million float32 parameters, made at random as it "arrives". Wardround keeps what
was accepted on disk (`server.rounds.aggregation_spool`), which needs 64 models of disk, and reads
it back in blocks. Flower's FedAvg gets the same updates, as its loop does: a list of replies. Each
runs in a process of its own; peak is the kernel's high-water mark of resident memory, less what
the process had before the first update.

Flower's 64 replies would not fit many machines: it is measured with fewer, and said for 64 by
the line through two of them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

PARAMETERS = 28_000_000
TENSORS = 28
TARGET = 4.0


def one_update(number: int, parameters: int) -> dict[str, NDArray[np.float32]]:
    """Return an update's tensors."""
    random = np.random.default_rng(number)
    size = parameters // TENSORS
    return {f"w{i}": random.standard_normal(size, dtype=np.float32) for i in range(TENSORS)}


def high_water() -> int:
    """Return this process's greatest resident memory so far, in bytes (Linux, proc(5))."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def ours(updates: int, parameters: int, folder: Path, name: str) -> float:
    """Aggregate as a round does; return the peak above the start, in models."""
    from common.recipe import AggregationSpec
    from server.rounds.aggregation import aggregate
    from server.rounds.aggregation_spool import UpdateSpool

    shapes = {f"w{i}": (parameters // TENSORS,) for i in range(TENSORS)}
    start = high_water()
    with UpdateSpool(folder, shapes) as spool:
        for number in range(updates):
            update = one_update(number, parameters)
            spool.add(f"site-{number:02d}", update, weight=100.0, norm=float(number + 1))
            del update
        found = aggregate(spool, AggregationSpec.model_validate({"name": name}))
    if not np.isfinite(found.delta["w0"]).all():
        raise SystemExit("the aggregate is not finite")
    return (high_water() - start) / (4 * parameters)


def flower(updates: int, parameters: int) -> float:
    """Give Flower's FedAvg the updates as replies; return the peak above the start, in models."""
    from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
    from flwr.serverapp.strategy import FedAvg
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    start = high_water()
    replies = []
    for number in range(updates):
        content = RecordDict(
            {
                "arrays": ArrayRecord(list(one_update(number, parameters).values())),
                "metrics": MetricRecord({"num-examples": 100}),
            }
        )
        replies.append(Message(content, dst_node_id=number + 1, message_type="train"))
    arrays, _ = FedAvg().aggregate_train(1, replies)
    if arrays is None:
        raise SystemExit("FedAvg aggregated nothing")
    return (high_water() - start) / (4 * parameters)


def in_process(*arguments: str) -> float:
    """Measure in a fresh process."""
    command = [sys.executable, "-m", "tests.bench.aggregation_memory", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> int:
    """Measure, print, and return 1 if the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--updates", type=int, default=64)
    parser.add_argument("--parameters", type=int, default=PARAMETERS)
    parser.add_argument("--flower-updates", type=int, default=8)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--aggregation", default="mean")
    parser.add_argument("--only", choices=("ours", "flower"))
    given = parser.parse_args()
    if given.only == "ours":
        found = ours(given.updates, given.parameters, given.folder, given.aggregation)
        sys.stdout.write(f"{found}\n")
        return 0
    if given.only == "flower":
        sys.stdout.write(f"{flower(given.updates, given.parameters)}\n")
        return 0
    size = ("--parameters", str(given.parameters), "--folder", str(given.folder))
    aggregation = ("--aggregation", given.aggregation)
    own = in_process("--only", "ours", "--updates", str(given.updates), *size, *aggregation)
    half = max(1, given.flower_updates // 2)
    few, more = (
        in_process("--only", "flower", "--updates", str(count), *size) for count in (half, 2 * half)
    )
    line = more + (more - few) / half * (given.updates - 2 * half)
    table = Table(title=f"Aggregating updates of {given.parameters / 1e6:g} M parameters")
    for heading in ("", "updates", "peak above the start, models"):
        table.add_column(heading, justify="right" if heading else "left")
    table.add_row(f"Wardround, {given.aggregation}", str(given.updates), f"{own:.2f}")
    table.add_row("Flower's FedAvg", str(half), f"{few:.2f}")
    table.add_row("Flower's FedAvg", str(2 * half), f"{more:.2f}")
    table.add_row("Flower's FedAvg, by that line", str(given.updates), f"{line:.0f}")
    Console().print(table)
    met = own <= TARGET
    Console().print(f"Target at most {TARGET:g} models: {'met' if met else 'MISSED'}.")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
