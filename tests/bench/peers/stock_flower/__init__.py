"""Starts the stock Flower application as its documentation says, and reads what it noted."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from deploy.components import BIN, environment
from deploy.ports import free_port

APP = Path(__file__).parent
NODES = 3


@dataclass(frozen=True)
class PeerRounds:
    """Seconds of each round, and array bytes a site and round, both ways together."""

    seconds: tuple[float, ...]
    bytes: tuple[float, ...]


def run_stock_flower(folder: Path, *, rounds: int, timeout: float = 900.0) -> PeerRounds:
    """Run SuperLink, three SuperNodes and the application, all with Flower's own defaults.

    Raises
    ------
    RuntimeError
        If the run did not end in time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    report, port = folder / "rounds.json", free_port()
    ports = [port]
    with ExitStack() as stack:
        _start(stack, folder, "superlink", "flower-superlink", "--insecure", "--port", str(port))
        time.sleep(5)
        for number in range(NODES):
            ports.append(free_port(ports))
            own = ("--port", str(ports[-1]), "--superlink", f"127.0.0.1:{port}")
            _start(stack, folder, f"node-{number}", "flower-supernode", "--insecure", *own)
        home = folder / "operator"
        settings = environment(home)
        connection = f'address = "127.0.0.1:{port}"\ninsecure = true\n'
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "peer"\n[superlink.peer]\n{connection}'
        )
        given = f'report="{report}" rounds={rounds} nodes={NODES}'
        command = [str(BIN / "flwr"), "run", str(APP), "peer", "--run-config", given]
        subprocess.run(command, env=settings, check=True, capture_output=True, timeout=120)
        end = time.monotonic() + timeout
        while not report.is_file():
            if time.monotonic() > end:
                raise RuntimeError(f"The stock application did not end; its logs are in {folder}.")
            time.sleep(1)
        time.sleep(0.5)
    marks = json.loads(report.read_text())
    pairs = list(itertools.pairwise(marks))
    return PeerRounds(
        tuple(b[0] - a[0] for a, b in pairs), tuple((b[1] - a[1]) / NODES for a, b in pairs)
    )


def _start(stack: ExitStack, folder: Path, name: str, program: str, *arguments: str) -> None:
    log = stack.enter_context((folder / f"{name}.log").open("wb"))
    process = subprocess.Popen(
        [str(BIN / program), *arguments],
        env=environment(folder / name, {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}),
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    stack.callback(_stop, process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
