"""``make load``: a site's service under load, while its model is swapped and rolled back.

A coordinator and a site run as real processes. Three minutes of a hospital's usual mix, with a
new release after one minute and the first one's weights under a higher version after two; then
twice of what the site can do. The exit status is 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psutil
from rich.console import Console

from common.evaluation import Metrics
from common.model import build_model, state_tensors
from common.recipe import Recipe, load_recipe
from common.release import Lineage, ReleaseDraft, ReleaseMetrics
from common.update import tensors_digest
from deploy.local import LocalFederation
from server.publishing.publisher import ReleasePublisher

console = Console()
SITE = "north"
PREDICTIONS_A_MINUTE = 1000
P95_SECONDS = 2.0
USERS = 26
"""Each asks once a second, 85 of 100 times for a prediction: 22 of them a second."""
OVERLOAD_USERS = 200
MEMORY_GROWTH = 1.15
QUICK_SECONDS = 300.0


@dataclass(frozen=True)
class Row:
    """What Locust says of one kind of request; times in seconds."""

    requests: int
    failures: int
    p50: float
    p95: float
    slowest: float


def recipe() -> Recipe:
    """Return dermatoscopy with efficientnet_b0 at 224 pixels."""
    return load_recipe("dermoscopy").with_changes(
        model="efficientnet_b0", image_size=224, normalisation="frozen"
    )


def publish(publisher: ReleasePublisher, seed: int, name: str) -> int:
    """Release the network of a seed; return the version."""
    tensors = state_tensors(build_model(recipe(), pretrained=False, seed=seed))
    none = (None,) * len(recipe().classes)
    metrics = Metrics(
        classes=recipe().classes, count=0, macro_auroc=None, auroc=none, accuracy=None,
        balanced_accuracy=None, majority_baseline=None, sensitivity=none,
    )  # fmt: skip
    draft = ReleaseDraft(
        recipe=recipe(),
        model_digest=tensors_digest(tensors),
        threshold=recipe().decision.threshold,
        lineage=Lineage(campaign="load", candidate=name, rounds=1),
        metrics=ReleaseMetrics(candidate=metrics),
        created_at=datetime.now(UTC).replace(microsecond=0),
    )
    return publisher.publish(draft, tensors)


def served(url: str) -> dict[str, object]:
    """Return what the site says of its model; nothing where it does not answer yet."""
    try:
        answer = httpx.get(f"{url}/health/ready", timeout=30, trust_env=False)
    except httpx.TransportError:
        return {}
    found: dict[str, object] = answer.json()
    return found


def wait_for(url: str, version: int, seconds: float = 120.0) -> float:
    """Wait until the site answers by a version and ONNX Runtime; return the seconds."""
    begin = time.monotonic()
    while time.monotonic() - begin < seconds:
        found = served(url)
        if (found.get("model_version"), found.get("runtime")) == (version, "onnxruntime"):
            return time.monotonic() - begin
        time.sleep(0.2)
    raise TimeoutError(f"version {version} was not served within {seconds:.0f} s")


def locust(url: str, folder: Path, *, users: int, seconds: int, overloaded: bool) -> dict[str, Row]:
    """Run Locust without its page; return its rows by name."""
    prefix = folder / ("overload" if overloaded else "usual")
    command = [
        *(sys.executable, "-m", "locust", "-f", str(Path(__file__).with_name("locustfile.py"))),
        *("--headless", "--only-summary", "--host", url, "--csv", str(prefix)),
        *("--users", str(users), "--spawn-rate", str(users), "--run-time", f"{seconds}s"),
        *("--exit-code-on-error", "0", "--stop-timeout", "30"),
    ]
    environment = {**os.environ, "WARDROUND_LOAD_OVERLOADED": "1" if overloaded else ""}
    nowhere = subprocess.DEVNULL
    subprocess.run(command, check=True, env=environment, stdout=nowhere, stderr=nowhere)
    with Path(f"{prefix}_failures.csv").open() as file:
        for row in csv.DictReader(file):
            console.print(f"  failed: {row['Name']}: {row['Error']} ({row['Occurrences']} times)")
    with Path(f"{prefix}_stats.csv").open() as file:
        return {
            row["Name"]: Row(
                int(row["Request Count"]), int(row["Failure Count"]),
                *(float(row[k]) / 1000 if row[k] != "N/A" else 0.0
                  for k in ("50%", "95%", "Max Response Time")),
            )
            for row in csv.DictReader(file)
        }  # fmt: skip


def show(rows: dict[str, Row]) -> None:
    """Print Locust's rows."""
    for name, row in rows.items():
        console.print(
            f"  {name}: {row.requests} requests, {row.failures} failed, p50 {row.p50:.3f} s, "
            f"p95 {row.p95:.3f} s, slowest {row.slowest:.3f} s",
            highlight=False,
        )


def usual(made: LocalFederation, publisher: ReleasePublisher, folder: Path, seconds: int) -> bool:
    """Three minutes of the usual mix, with a swap and a rollback."""
    url = made.site_url(SITE)
    swaps: list[float] = []

    def disturb() -> None:
        for number, (seed, name) in enumerate(((2, "second"), (1, "rolled-back")), start=2):
            time.sleep(seconds / 3)
            publish(publisher, seed, name)
            swaps.append(wait_for(url, number))

    thread = threading.Thread(target=disturb)
    thread.start()
    rows = locust(url, folder, users=USERS, seconds=seconds, overloaded=False)
    thread.join()
    show(rows)
    predictions = rows["/predict"]
    rate = predictions.requests / seconds * 60
    console.print(f"swapped after {swaps[0]:.1f} s, rolled back after {swaps[1]:.1f} s")
    return all(
        (
            _told("predictions a minute", rate, at_least=PREDICTIONS_A_MINUTE),
            _told("p95 of a prediction, s", predictions.p95, at_most=P95_SECONDS),
            _told("failures", rows["Aggregated"].failures, at_most=0),
        )
    )


def serving(made: LocalFederation) -> psutil.Process:
    """Return the process that answers: the child of the one that was started."""
    (child,) = psutil.Process(made.pid(f"{SITE}-service")).children()
    return child


def overload(made: LocalFederation, folder: Path, seconds: int) -> bool:
    """Ask for twice of what the site can do: only 429s, bounded latency, flat memory."""
    url, process = made.site_url(SITE), serving(made)
    # A first time, so that what is measured is not the first use of memory.
    locust(url, folder, users=OVERLOAD_USERS, seconds=10, overloaded=True)
    before = process.memory_info().rss
    rows = locust(url, folder, users=OVERLOAD_USERS, seconds=seconds, overloaded=True)
    after = process.memory_info().rss
    show(rows)
    refused = rows.get("/predict (429)", Row(0, 0, 0.0, 0.0, 0.0))
    console.print(f"memory {before / 2**20:.0f} MiB before, {after / 2**20:.0f} MiB after")
    return all(
        (
            _told("refused with 429", refused.requests, at_least=1),
            _told("other failures", rows["Aggregated"].failures, at_most=0),
            _told("p95 of a prediction, s", rows["/predict"].p95, at_most=P95_SECONDS),
            _told("memory after over before", after / before, at_most=MEMORY_GROWTH),
        )
    )


def _told(
    what: str, value: float, *, at_least: float | None = None, at_most: float | None = None
) -> bool:
    met = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
    limit = f"at least {at_least}" if at_least is not None else f"at most {at_most}"
    console.print(f"{what}: {value:.2f}; {limit}: {'met' if met else 'MISSED'}", highlight=False)
    return met


def main() -> int:
    """Run both, print, and return the exit status."""
    parser = argparse.ArgumentParser(description="Load on a site's service.")
    parser.add_argument("--seconds", type=int, default=180, help="of the usual mix")
    parser.add_argument("--overload-seconds", type=int, default=60)
    options = parser.parse_args()
    os.environ.pop("WARDROUND_SITE_INFERENCE", None)
    with (
        tempfile.TemporaryDirectory(prefix="wardround-load-") as name,
        LocalFederation(
            Path(name, "f"), sites=[SITE], task="dermoscopy", recipe=recipe(),
            # The same few pictures come again and again: every answer is to be computed.
            site_settings={"threads": 0, "inference": {"kept_answers": 0}},
        ) as made,
    ):  # fmt: skip
        made.start()
        publisher = ReleasePublisher(made.coordinator)
        publish(publisher, 1, "first")
        wait_for(made.site_url(SITE), 1, QUICK_SECONDS)
        well = usual(made, publisher, Path(name), options.seconds)
        well = overload(made, Path(name), options.overload_seconds) and well
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
