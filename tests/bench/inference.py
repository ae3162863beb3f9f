"""A site's predictions a second beside its peers': ``python -m tests.bench.inference``.

efficientnet_b0 at 224 pixels, 16 clients, JPEG pictures of 256 x 256, all cores of this machine for
server and load generator together. Each service runs alone, then the next one. "Raw" is ONNX
Runtime in a loop on each core, with nothing before or after it.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from common.recipe import load_recipe
from deploy.ports import free_port
from simulations.phantoms import phantom_hospital, scanner_for_site
from tests.bench.http_load import Load
from tests.bench.peers.services import SIDE, graph, session

console = Console()
PICTURES = 64
START_SECONDS = 300.0
RAW_SECONDS = 8.0
TARGETS = {"FastAPI + eager torch": 3.5, "LitServe + ONNX Runtime": 1.8, "FastAPI + ONNX": 1.1}
RAW_TARGET = 0.85
OURS = "Wardround"


def write_pictures(folder: Path) -> None:
    """Write phantom lesions as JPEG."""
    folder.mkdir()
    recipe = load_recipe("dermoscopy")
    cases = phantom_hospital(
        recipe, scanner_for_site(0), PICTURES, np.random.default_rng(0), size=256, most_images=1
    )
    for number, case in enumerate(cases):
        picture = Image.open(io.BytesIO(case.image)).convert("RGB").resize((256, 256))
        picture.save(folder / f"{number:03}.jpg", quality=90)


@contextmanager
def serving(command: list[str], port: int, ready: Callable[[str], bool]) -> Iterator[str]:
    """Run a service until it is ready; yield its address."""
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], stdout=log, stderr=log, start_new_session=True
        )
        try:
            deadline = time.monotonic() + START_SECONDS
            while not ready(address):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise RuntimeError(log.read()[-2000:].decode(errors="replace"))
                time.sleep(0.2)
            yield address
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with suppress(ProcessLookupError):  # its workers, too
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def answers(picture: bytes) -> Callable[[str], bool]:
    """Return a test for a service that answers one picture."""

    def ready(address: str) -> bool:
        try:
            files = {"image": ("x.jpg", picture)}
            answer = httpx.post(f"{address}/predict", files=files, timeout=60, trust_env=False)
        except httpx.HTTPError:
            return False
        return answer.status_code == 200

    return ready


def quickened(address: str) -> bool:
    """Tell whether a site answers, by ONNX Runtime."""
    try:
        answer = httpx.get(f"{address}/health/ready", timeout=5, trust_env=False)
    except httpx.HTTPError:
        return False
    return answer.status_code == 200 and answer.json()["runtime"] == "onnxruntime"


def load(address: str, pictures: Path, options: argparse.Namespace) -> Load:
    """Ask a service, from a process of its own."""
    command = ["tests.bench.http_load", f"{address}/predict", str(pictures)]
    further = ["--clients", str(options.clients), "--seconds", str(options.seconds)]
    done = subprocess.run(
        [sys.executable, "-m", *command, *further], stdout=subprocess.PIPE, check=True
    )
    return Load(**json.loads(done.stdout))


def raw_rate(path: str, cores: int) -> float:
    """Return images a second of ONNX Runtime alone, one loop a core."""
    onnx = session(path, threads=1)
    batch = np.random.default_rng(0).normal(size=(1, 3, SIDE, SIDE)).astype(np.float32)
    onnx.run(None, {"images": batch})
    counts = [0] * cores
    end = time.monotonic() + RAW_SECONDS

    def loop(core: int) -> None:
        while time.monotonic() < end:
            onnx.run(None, {"images": batch})
            counts[core] += 1

    threads = [threading.Thread(target=loop, args=(core,)) for core in range(cores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / RAW_SECONDS


def measure(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Load], float, int]:
    """Measure all, one after the other."""
    pictures = folder / "pictures"
    write_pictures(pictures)
    first = next(pictures.iterdir()).read_bytes()
    kinds = {"eager": "FastAPI + eager torch", "litserve": "LitServe + ONNX Runtime",
             "onnx": "FastAPI + ONNX"}  # fmt: skip
    cores = len(os.sched_getaffinity(0))
    path = graph(folder)
    raw = raw_rate(path, cores)
    found = {}
    for kind, name in kinds.items():
        port = free_port()
        command = ["tests.bench.peers.services", kind, str(port), path]
        with serving(command, port, answers(first)) as address:
            found[name] = load(address, pictures, options)
    port = free_port()
    command = ["tests.bench.peers.wardround_site", str(folder / "site"), str(port)]
    with serving(command, port, quickened) as address:
        found[OURS] = load(address, pictures, options)
    return found, max(raw, raw_rate(path, cores)), cores


def report(found: dict[str, Load], raw: float, cores: int) -> bool:
    """Print the table and the targets; tell whether all are met."""
    ours = found[OURS]
    table = Table(title=f"efficientnet_b0 at {SIDE} px, 16 clients, {cores} cores")
    for heading in ("", "requests/s", "ours is", "p50 ms", "p95 ms", "failed", "generator's CPU s"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, one in found.items():
        table.add_row(
            name, f"{one.rate:.1f}", f"{ours.rate / one.rate:.2f} x", f"{one.p50 * 1000:.0f}",
            f"{one.p95 * 1000:.0f}", str(one.failures), f"{one.cpu_seconds:.1f}",
        )  # fmt: skip
    table.add_row("ONNX Runtime, raw", f"{raw:.1f}", "", "", "", "", "")
    console.print(table)
    verdicts = [_verdict(f"{target} x {name}", ours.rate / found[name].rate, target)
                for name, target in TARGETS.items()]  # fmt: skip
    left = cores - ours.cpu_seconds / ours.seconds
    verdicts.append(
        _verdict(
            f"{RAW_TARGET} of raw on the cores that the generator left ({left:.2f})",
            ours.rate / (raw * left / cores),
            RAW_TARGET,
        )
    )
    slowest = found["FastAPI + ONNX"].p95
    verdicts.append(_verdict("p95 of FastAPI + ONNX over ours", slowest / ours.p95, 1.0))
    return all(verdicts) and ours.failures == 0


def _verdict(what: str, value: float, target: float) -> bool:
    met = value >= target
    console.print(f"{what}: {value:.2f}; target {target}: {'met' if met else 'MISSED'}")
    return met


def main() -> int:
    """Measure, print, and return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description="Predictions a second, beside peers.")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="inference-") as folder:
        found = measure(options, Path(folder))
    return 0 if report(*found) else 1


if __name__ == "__main__":
    sys.exit(main())
