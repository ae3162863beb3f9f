"""``python -m client.runner --folder SITE --runtime-address 127.0.0.1:9094``: run until stopped."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import threading
from pathlib import Path
from typing import NoReturn

SECRET = Path("keys") / "superexec.secret"
HEAVY_MODULES = ("torch", "timm", "opacus")


def main() -> NoReturn:
    """Import everything once, then fork a child for each message of the SuperNode."""
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    folder = arguments.folder.resolve()
    os.environ["WARDROUND_SITE_FOLDER"] = str(folder)
    # NVML tells whether there is a GPU without opening CUDA, which no fork survives.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    for name in HEAVY_MODULES:
        importlib.import_module(name)
    from client.runner.executor import ForkingExecutor
    from client.runner.flower import run_message, serve
    from client.runner.pace import Pace

    app = getattr(importlib.import_module(arguments.app), "app")  # noqa: B009
    _refuse_unsafe_fork()
    executor = ForkingExecutor(lambda spec: run_message(spec, app), pace=Pace(busy=0.04, idle=0.5))
    logging.getLogger(__name__).info("event=runner-ready pid=%d", os.getpid())
    if arguments.ready is not None:
        arguments.ready.write_text(str(os.getpid()))
    serve(
        executor,
        runtime_address=arguments.runtime_address,
        secret=(folder / SECRET).read_bytes(),
    )


def _refuse_unsafe_fork() -> None:
    import torch

    tasks = Path("/proc/self/task")
    threads = len(list(tasks.iterdir())) if tasks.is_dir() else threading.active_count()
    gpu_open: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    if threads > 1 or gpu_open:
        raise SystemExit(
            f"The runner has {threads} threads or an open GPU, so it cannot fork safely. "
            "Start it with OMP_NUM_THREADS=1 and OPENBLAS_NUM_THREADS=1."
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Run a site's Flower messages, warm.")
    parser.add_argument("--folder", type=Path, required=True, help="the site's folder")
    parser.add_argument(
        "--runtime-address",
        default="127.0.0.1:9094",
        help="host:port of the SuperNode's Runtime API on this machine",
    )
    parser.add_argument("--ready", type=Path, help="a file to write when everything is imported")
    parser.add_argument("--app", default="client.app", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
