"""Running the very ServerApp and ClientApp of a deployment through Flower's Ray engine.

Nothing of either is replaced: the ServerApp gets its run configuration and a `Grid` that can be
stopped, the ClientApp finds its sites by the environment. See `flwr.simulation.run_simulation`,
whose public form has no run configuration of its own.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

# Before flwr and ray are imported: both read these once.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import psutil
import ray
from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from common.errors import ProcessError

if TYPE_CHECKING:
    from simulations.adversaries import Adversary
    from simulations.slow_sites import SlowSite

logger = logging.getLogger(__name__)

COORDINATOR_FOLDER = "WARDROUND_COORDINATOR_FOLDER"
SITES_FOLDER = "WARDROUND_SITES_FOLDER"
OBJECT_STORE_BYTES = 512 * 2**20
SINGLE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
SHUTDOWN_SECONDS = 10.0
RAY_ATTEMPTS = 4
EXIT_INTERRUPTED = 130


class Stopped(BaseException):
    """Ends an interrupted simulation's round loop; no Exception, so that nothing swallows it."""


class StoppableGrid(Grid):
    """A grid that hands everything on, until ``stop`` is set: then every call raises `Stopped`."""

    def __init__(self, grid: Grid, stop: threading.Event) -> None:
        self._grid = grid
        self._stop = stop

    def _checked(self) -> Grid:
        if self._stop.is_set():
            raise Stopped
        return self._grid

    def set_run(self, run: Any) -> None:
        """See `Grid.set_run`."""
        self._checked().set_run(run)

    @property
    def run(self) -> Any:
        """See `Grid.run`."""
        return self._checked().run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """See `Grid.create_message`."""
        return self._checked().create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """See `Grid.get_node_ids`."""
        return self._checked().get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """See `Grid.push_messages`."""
        return self._checked().push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """See `Grid.pull_messages`."""
        return self._checked().pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """See `Grid.send_and_receive`."""
        return self._checked().send_and_receive(messages, timeout=timeout)


def run_campaign_on_ray(
    campaign: str,
    *,
    coordinator: Path,
    sites: Path,
    site_count: int,
    workers: int,
    log: Path,
    adversaries: Sequence[Adversary] = (),
    slow: Sequence[SlowSite] = (),
) -> None:
    """Run a created campaign to its end; when this returns or raises, Ray is gone.

    Parameters
    ----------
    campaign : str
        Its id in the coordinator's registry.
    coordinator, sites : Path
        The coordinator's folder, and the folder that holds the sites' folders.
    site_count : int
        Number of site folders.
    workers : int
        Sites that work at the same time, each on one CPU thread.
    log : Path
        Gets everything that Flower and the ServerApp log.
    adversaries : sequence of Adversary
        Sites that change their updates.
    slow : sequence of SlowSite
        Sites that take longer.

    Raises
    ------
    WardroundError
        What made the campaign fail.
    """
    from flwr.simulation import run_simulation

    from client.app import app as honest_app
    from server.app import app as server_app
    from simulations.adversaries import hostile_app
    from simulations.slow_sites import slowed_app

    client_app = hostile_app(honest_app, adversaries) if adversaries else honest_app
    client_app = slowed_app(client_app, slow) if slow else client_app

    stop = threading.Event()
    configured = ServerApp()

    @configured.main()
    def _main(grid: Grid, context: Context) -> None:
        context.run_config = {"campaign": campaign}
        try:
            server_app(StoppableGrid(grid, stop), context)
        except Stopped:
            logger.warning("simulation-stopped campaign=%s", campaign)

    environment = {COORDINATOR_FOLDER: str(coordinator), SITES_FOLDER: str(sites)}
    environment |= dict.fromkeys(SINGLE_THREAD, "1")
    ray_of_its_own = _ray(min(workers, site_count))
    with _environment(environment), _logging_to(log), ray_of_its_own, _interruptible(stop):
        try:
            # Ray is up, and Flower takes it as it is: its backend needs no more than this.
            resources: dict[str, dict[str, Any]] = {
                "client_resources": {"num_cpus": 1, "num_gpus": 0.0}
            }
            run_simulation(configured, client_app, site_count, backend_config=resources)
        except RuntimeError as error:  # what Flower makes of every fault of its engine
            raise ProcessError(
                f"The simulation engine stopped: {error}", action=f"Read {log}.", code="engine"
            ) from error


@contextmanager
def _interruptible(stop: threading.Event) -> Iterator[None]:
    """Turn the first Ctrl-C into ``stop``, and raise `KeyboardInterrupt` once all has ended.

    Raised at once it would end Ray under Flower's threads, which then wait for it for ever. A
    second Ctrl-C ends this process on the spot, and Ray's, which share its fate.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread hears signals
        return

    def on_interrupt(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(EXIT_INTERRUPTED)
        stop.set()

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if stop.is_set():
        raise KeyboardInterrupt


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables that Ray's workers inherit, and put back what was there.

    ``PYTHONPATH`` is among those put back: Flower writes the whole ``sys.path`` into it.
    """
    before = {name: os.environ.get(name) for name in (*values, "PYTHONPATH")}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Send the root's and Flower's log records to a file instead of the terminal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    root, flower = logging.getLogger(), logging.getLogger("flwr")
    before = root.handlers[:], root.level, flower.handlers[:], flower.propagate
    root.handlers[:], flower.handlers[:] = [handler], []
    root.setLevel(logging.INFO)
    flower.propagate = True
    try:
        yield
    finally:
        root.handlers[:], level, flower.handlers[:], flower.propagate = before
        root.setLevel(level)
        handler.close()


@contextmanager
def _ray(workers: int) -> Iterator[None]:
    """Run Ray with so many CPUs; afterwards end what it may have left, and remove its folder.

    That folder is a short one of its own: a path under the run's could exceed the 107 bytes of a
    Unix socket's name.
    """
    before = _children()
    folder = tempfile.mkdtemp(prefix="wr-ray-")
    try:
        for attempt in range(1, RAY_ATTEMPTS + 1):
            try:
                _start_ray(workers, folder)
                break
            except Exception as error:  # Ray raises a bare Exception when it is late
                logger.warning("ray-not-started attempt=%d reason=%s", attempt, error)
                # A start that failed leaves its processes, which would slow the next one down.
                _end_ray(before)
                if attempt == RAY_ATTEMPTS:
                    raise ProcessError(
                        f"Ray did not start: {error}",
                        action="Free memory and CPU on this machine, then try again.",
                        code="ray",
                    ) from error
        yield
    finally:
        _end_ray(before)
        shutil.rmtree(folder, ignore_errors=True)


def _start_ray(workers: int, folder: str) -> None:
    """Start Ray. It gives itself a fixed 30 seconds, which a busy machine can exceed."""
    python_path = os.pathsep.join(path for path in sys.path if path)
    ray.init(
        num_cpus=workers,
        num_gpus=0,
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": python_path}},
        _temp_dir=folder,
    )


def _children() -> set[int]:
    return {process.pid for process in psutil.Process().children(recursive=True)}


def _end_ray(before: set[int]) -> None:
    """Shut Ray down, and end all processes below this one that were not there before."""
    ray.shutdown()
    children = psutil.Process().children(recursive=True)
    _end([process for process in children if process.pid not in before])


def _end(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.terminate()
        except psutil.NoSuchProcess:
            continue
    _, alive = psutil.wait_procs(processes, timeout=SHUTDOWN_SECONDS)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=SHUTDOWN_SECONDS)
