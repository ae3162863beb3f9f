"""A supervisor of named processes: started together, watched, stopped together, never orphaned.

Each process leads a group of its own, so that a terminal's Ctrl-C reaches the supervisor alone
and the supervisor stops the others in order. A process is killed by the kernel when the
supervisor dies, however it dies (`deploy.guard`). After `Supervisor.keep_alive`, one that ends
without being told to is started again, unless it does so again and again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from common.errors import ProcessError

GUARD = Path(__file__).with_name("guard.py")
POLL_SECONDS = 0.05
LOG_TAIL_LINES = 3
LOG_TAIL_BYTES = 8192

State = Literal["running", "stopped", "failed", "restarting"]

RESTARTS = 5
"""Of one process within `RESTARTS_SECONDS`; one that ends more often is left as failed."""
RESTARTS_SECONDS = 120.0
FIRST_RESTART_SECONDS = 0.5


@dataclass(frozen=True)
class ProcessSpec:
    """What to run.

    Attributes
    ----------
    name : str
        Unique within the supervisor; the log is ``<name>.log``.
    command : sequence of str
        Program and arguments.
    environment : mapping of str to str
        The whole environment of the process.
    log : Path
        Where stdout and stderr go, appended.
    ready : callable, optional
        Tells whether it can be used now.
    ready_file : Path, optional
        A file that it writes when it can be used; an earlier one is removed at the start.
        With neither, a process counts as ready as soon as it runs.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    ready: Callable[[], bool] | None = None
    ready_file: Path | None = None


class _Process:
    """A started process. Only `ended` reaps it, so its group id cannot be another's before."""

    def __init__(self, spec: ProcessSpec, popen: subprocess.Popen[bytes]) -> None:
        self.spec = spec
        self.popen = popen
        self.stopping = False
        self.noticed: float | None = None
        self._lock = threading.Lock()

    def ended(self) -> int | None:
        """Return the exit code, or None while it runs; at its end, its group is killed too."""
        with self._lock:
            if self.popen.returncode is not None:
                return self.popen.returncode
            flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
            if os.waitid(os.P_PID, self.popen.pid, flags) is None:
                return None
            self._signal(signal.SIGKILL)
            return self.popen.wait()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process and its group, if it has not ended."""
        if self.ended() is None:
            self._signal(number)

    def wait(self, seconds: float) -> bool:
        """Wait for its end; tell whether it came."""
        deadline = time.monotonic() + seconds
        while self.ended() is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS / 2)
        return True

    def _signal(self, number: signal.Signals) -> None:
        # The leader is at least a zombie here; on macOS a group of zombies gives EPERM.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.popen.pid, number)


class Supervisor:
    """Runs processes until `stop`; use it as a context manager."""

    def __init__(self) -> None:
        self._processes: dict[str, _Process] = {}
        # The kernel's death signal follows the THREAD that forked, so one thread, which lives
        # as long as the supervisor, starts every process.
        self._spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._keeper: threading.Thread | None = None
        self._restarts: dict[str, list[float]] = {}

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self, spec: ProcessSpec) -> int:
        """Start a process and return its id; a stopped or failed one of that name is replaced.

        Raises
        ------
        ProcessError
            If it cannot be started, or one of that name is running.
        """
        with self._lock:
            current = self._processes.get(spec.name)
            if current is not None and current.ended() is None:
                raise ProcessError(f"The process {spec.name} is running already.")
            popen = self._spawner.submit(_spawn, spec).result()
            self._processes[spec.name] = _Process(spec, popen)
        return popen.pid

    def wait_ready(self, names: Sequence[str] | None = None, *, timeout: float) -> None:
        """Wait until the processes (all by default) are ready.

        Raises
        ------
        ProcessError
            With code ``process-died`` if any process of the supervisor ends, or
            ``process-not-ready`` after ``timeout`` seconds; the text names the log.
        """
        deadline = time.monotonic() + timeout
        waiting = list(self._processes if names is None else names)
        while waiting:
            self.check()
            waiting = [n for n in waiting if not _is_ready(self._processes[n].spec)]
            if waiting and time.monotonic() > deadline:
                late = self._processes[waiting[0]].spec
                raise ProcessError(
                    f"{', '.join(waiting)} did not become ready within {timeout:.0f} s.",
                    action=f"Read {late.log}. {_tail(late.log)}",
                    code="process-not-ready",
                )
            if waiting:
                time.sleep(POLL_SECONDS)

    def keep_alive(self) -> None:
        """From now on, start processes again that end by themselves; a second call does nothing."""
        if self._keeper is None:
            self._keeper = threading.Thread(target=self._keep, name="keep-alive", daemon=True)
            self._keeper.start()

    def _keep(self) -> None:
        while not self._stopping.wait(4 * POLL_SECONDS):
            for name, process in list(self._processes.items()):
                if process.ended() is not None and self._may_restart(process):
                    self._restart_later(name, process)

    def _restart_later(self, name: str, process: _Process) -> None:
        now, times = time.monotonic(), self._restarts.setdefault(name, [])
        times[:] = [moment for moment in times if now - moment < RESTARTS_SECONDS]
        pause = FIRST_RESTART_SECONDS * 2 ** len(times)
        if process.noticed is None:
            process.noticed = now
        if now - process.noticed < pause or self._stopping.is_set():
            return
        times.append(now)
        with contextlib.suppress(ProcessError):  # tried again while it may
            self.start(process.spec)

    def _may_restart(self, process: _Process) -> bool:
        if self._keeper is None or process.stopping or self._stopping.is_set():
            return False
        times, now = self._restarts.get(process.spec.name, []), time.monotonic()
        return sum(now - moment < RESTARTS_SECONDS for moment in times) < RESTARTS

    def check(self) -> None:
        """Raise ProcessError if a process ended by itself and is not started again.

        Raises
        ------
        ProcessError
            With code ``process-died``.
        """
        for process in list(self._processes.values()):
            code = process.ended()
            if code is not None and not process.stopping and not self._may_restart(process):
                raise ProcessError(
                    f"The process {process.spec.name} ended ({_describe(code)}).",
                    action=f"Read {process.spec.log}. {_tail(process.spec.log)}",
                    code="process-died",
                )

    def states(self) -> dict[str, State]:
        """Return the state of every process, in the order in which they were started."""
        states: dict[str, State] = {}
        for name, process in self._processes.items():
            if process.ended() is None:
                states[name] = "running"
            elif process.stopping:
                states[name] = "stopped"
            else:
                states[name] = "restarting" if self._may_restart(process) else "failed"
        return states

    def pid(self, name: str) -> int:
        """Return the process id of a process."""
        return self._processes[name].popen.pid

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a deadly signal to a process's group and wait for its end; for tests of failure."""
        process = self._processes[name]
        process.stopping = True
        process.send(number)
        if not process.wait(30.0):
            raise ProcessError(f"The process {name} does not end.")

    def restart(self, name: str) -> int:
        """Start a process again that has ended, and return its new id."""
        return self.start(self._processes[name].spec)

    def stop_one(self, name: str, *, grace: float = 5.0) -> None:
        """Stop one process: asked first, killed after ``grace`` seconds."""
        self._stop([self._processes[name]], grace)

    def stop(self, groups: Sequence[Sequence[str]] = (), *, grace: float = 4.0) -> None:
        """Stop everything: first each of ``groups`` in order, then the rest together.

        Each group is asked with SIGTERM and killed after ``grace`` seconds. A second call, or
        one with nothing left to stop, returns at once.
        """
        self._stopping.set()
        if self._keeper is not None and self._keeper is not threading.current_thread():
            self._keeper.join()
        for group in groups:
            self._stop([self._processes[n] for n in group if n in self._processes], grace)
        self._stop(list(self._processes.values()), grace)
        self._spawner.shutdown(wait=True)

    def _stop(self, processes: Sequence[_Process], grace: float) -> None:
        for process in processes:
            process.stopping = True
        for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
            for process in processes:
                process.send(number)
            deadline = time.monotonic() + seconds
            for process in processes:
                process.wait(max(0.0, deadline - time.monotonic()))


def _spawn(spec: ProcessSpec) -> subprocess.Popen[bytes]:
    spec.log.parent.mkdir(parents=True, exist_ok=True)
    if spec.ready_file is not None:
        spec.ready_file.unlink(missing_ok=True)
    guarded = [sys.executable, "-I", "-S", str(GUARD), str(os.getpid()), *spec.command]
    with spec.log.open("ab") as log:
        try:
            return subprocess.Popen(
                guarded,
                env=dict(spec.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise ProcessError(
                f"The process {spec.name} cannot be started ({error.strerror}).",
                action="Check that Wardround is installed whole in this environment.",
            ) from error


def _is_ready(spec: ProcessSpec) -> bool:
    if spec.ready_file is not None and not spec.ready_file.exists():
        return False
    return spec.ready is None or spec.ready()


def _describe(code: int) -> str:
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


def _tail(log: Path) -> str:
    try:
        data = log.read_bytes()[-LOG_TAIL_BYTES:]
    except OSError:
        return ""
    lines = [line.strip() for line in data.decode("utf-8", "replace").splitlines()]
    return "Its last lines: " + " | ".join([line for line in lines if line][-LOG_TAIL_LINES:])
