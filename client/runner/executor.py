"""Running each message in a fresh child, forked from a process that has imported everything.

The parent keeps one thread, opens no GPU and answers nothing itself, so that a fork copies a
clean state (POSIX fork copies only the calling thread; a lock held by another stays locked).
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from flwr.supercore.constant import TaskType
from flwr.supercore.superexec.executor import ExecutionSpec, LaunchResult

from client.forking import die_with, draw_fresh_randomness
from client.runner.flower import forget_exit_handlers
from client.runner.pace import Pace

log = logging.getLogger(__name__)

STOP_SECONDS = 3.0

RunMessage = Callable[[ExecutionSpec], NoReturn]


class ForkingExecutor:
    """Flower's Executor protocol: one message at a time, each in its own forked child.

    One at a time, because the site has one GPU and one memory limit; the SuperNode hands out
    the next message only after the reply to the last.

    Parameters
    ----------
    run_message : callable
        What the child does; it must not return.
    pace : Pace
        How long to wait before asking for the next message.
    """

    def __init__(self, run_message: RunMessage, *, pace: Pace) -> None:
        self._run_message = run_message
        self._pace = pace
        self._child: int | None = None

    def get_eligible_capacity(
        self,
        supported_task_types: set[TaskType],
        *,
        insecure: bool = False,  # noqa: ARG002
        root_certificates_path: str | None = None,  # noqa: ARG002
    ) -> tuple[set[TaskType], set[str]]:
        """Wait for the last child and the pace; then ask for ClientApp messages, nothing else."""
        if self._child is not None:
            self._wait_for_child()
        time.sleep(self._pace.seconds)
        return supported_task_types & {TaskType.CLIENT_APP}, set()

    def wait_for_capacity(
        self,
        task_type: TaskType | None = None,  # noqa: ARG002
        *,
        fab_hash: str | None = None,  # noqa: ARG002
        insecure: bool = False,  # noqa: ARG002
        root_certificates_path: str | None = None,  # noqa: ARG002
    ) -> None:
        """Return when no message is being worked on."""
        if self._child is not None:
            self._wait_for_child()

    def launch(self, spec: ExecutionSpec) -> LaunchResult:
        """Fork a child for the message, or refuse what this site does not run."""
        if spec.task_type is not TaskType.CLIENT_APP:
            log.error("event=task-refused type=%s", spec.task_type)
            return LaunchResult.failed("This site runs ClientApp messages only.")
        if spec.runtime_dependency_install:
            log.error("event=task-refused reason=dependency-installation")
            return LaunchResult.failed("This site installs nothing at run time.")
        self._pace.work_seen()
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            _be_the_child(parent, self._run_message, spec)
        self._child = child
        log.info("event=message-started task=%d pid=%d", spec.task_id, child)
        return LaunchResult.accepted()

    def reconcile(self) -> None:
        """Do nothing: children are waited for before the next question."""

    def close(self) -> None:
        """Stop the running child, kindly and then not."""
        if self._child is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, number)
            deadline = time.monotonic() + STOP_SECONDS
            while time.monotonic() < deadline:
                if self._reap(os.WNOHANG):
                    return
                time.sleep(0.02)

    def _wait_for_child(self) -> None:
        self._reap(0)
        self._pace.work_seen()

    def _reap(self, options: int) -> bool:
        if self._child is None:
            return True
        try:
            pid, status = os.waitpid(self._child, options)
        except ChildProcessError:
            pid, status = self._child, 0
        if pid == 0:
            return False
        code = os.waitstatus_to_exitcode(status)
        level = logging.INFO if code == 0 else logging.ERROR
        log.log(level, "event=message-ended pid=%d exit=%d", pid, code)
        self._child = None
        return True


def _be_the_child(parent: int, run_message: RunMessage, spec: ExecutionSpec) -> NoReturn:
    code = 1
    try:
        die_with(parent)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)
        forget_exit_handlers()
        draw_fresh_randomness()
        run_message(spec)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException as error:
        log.error("event=message-crashed error=%s", type(error).__name__)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Not sys.exit: the parent's stack and atexit functions are not the child's to run.
        os._exit(code)
