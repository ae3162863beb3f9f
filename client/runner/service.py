"""The runner itself: everything imported, nothing opened, waiting for messages to fork for."""

from __future__ import annotations

import importlib
import logging
import os
from pathlib import Path
from typing import NoReturn

import opacus  # noqa: F401 - imported once here, so that no child has to
import timm  # noqa: F401
import torch
from flwr.clientapp import ClientApp
from flwr.supercore.superexec.executor import ExecutionSpec

from client.forking import fork_dangers
from client.runner.executor import ForkingExecutor
from client.runner.flower import run_message, serve
from client.runner.pace import Pace
from client.settings import SiteSettings
from common.errors import ConfigurationError

log = logging.getLogger(__name__)

BUSY_SECONDS = 0.04
IDLE_SECONDS = 0.5


def run(settings: SiteSettings, *, ready: Path | None, module: str = "client.app") -> NoReturn:
    """Import the site's app, then answer messages until stopped.

    Parameters
    ----------
    settings : SiteSettings
        The site's; its SuperNode listens on ``runtime_port``.
    ready : Path or None
        A file to write once everything is imported.
    module : str
        Holds the ClientApp as ``app``.

    Raises
    ------
    ConfigurationError
        With code ``fork-unsafe`` if the imports left a second thread or an open GPU.
    """
    os.environ["WARDROUND_SITE_FOLDER"] = str(settings.folder)
    app: ClientApp = importlib.import_module(module).app
    refuse_unsafe_fork()
    threads = settings.threads or os.cpu_count() or 1

    def answer(spec: ExecutionSpec) -> NoReturn:
        torch.set_num_threads(threads)
        run_message(spec, app)

    log.info("event=runner-ready pid=%d threads=%d", os.getpid(), threads)
    if ready is not None:
        ready.touch()
    serve(
        ForkingExecutor(answer, pace=Pace(busy=BUSY_SECONDS, idle=IDLE_SECONDS)),
        runtime_address=f"127.0.0.1:{settings.runtime_port}",
        secret=(settings.keys / "superexec.secret").read_bytes(),
    )


def refuse_unsafe_fork() -> None:
    """Raise ConfigurationError (code ``fork-unsafe``) if a fork now could hang or lose the GPU."""
    if dangers := fork_dangers():
        raise ConfigurationError(
            f"After its imports the runner has {dangers}.",
            meaning="A forked child could hang, so no message would be answered.",
            action="Report which package was upgraded; go back to the tested versions.",
            code="fork-unsafe",
        )
