"""The parent that forks a child, and another where that one is killed."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sys
import time
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

from client.forking import die_with, draw_fresh_randomness, fork_dangers

log = logging.getLogger(__name__)

CRASHES = frozenset(
    {
        signal.SIGKILL,
        signal.SIGSEGV,
        signal.SIGBUS,
        signal.SIGABRT,
        signal.SIGILL,
        signal.SIGFPE,
    }
)
"""Ends that nobody asked for; any other is passed on, for whoever started the parent to judge."""
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
LONG_LIFE = 60.0
"""Seconds after which a child's end says nothing about the next one's."""


@dataclass(frozen=True)
class Pause:
    """How long to wait before the next child, seconds: doubled while they live but shortly."""

    seconds: float = FIRST_PAUSE

    def after(self, life: float) -> Pause:
        """Return the pause that follows a child which lived ``life`` seconds."""
        if life >= LONG_LIFE:
            return Pause()
        return Pause(min(2 * self.seconds, LONGEST_PAUSE))


def fork_again_when_killed() -> None:
    """Return in a child, and in another one each time that a child is killed or crashes.

    The parent itself never returns: it passes SIGTERM and SIGINT on as SIGTERM, and ends as its
    last child ended. A child dies with its parent. Where a fork is not safe (not on Linux, a
    second thread, an open GPU) there is no parent: this returns at once.
    """
    dangers = fork_dangers() if sys.platform == "linux" else "another system than Linux"
    if dangers:
        log.warning("event=no-standby reason=%s", dangers.replace(" ", "-"))
        return
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page that it looks at
    parent, pause = _Parent(), Pause()
    while parent.fork():
        begun = time.monotonic()
        status = parent.wait()
        ended = -os.waitstatus_to_exitcode(status)
        if parent.stopping is not None or ended not in CRASHES:
            _end_as(status, parent.stopping)
        log.error(
            "event=service-killed signal=%s again_after=%.1f",
            *(signal.Signals(ended).name, pause.seconds),
        )
        parent.rest(pause.seconds)
        pause = pause.after(time.monotonic() - begun)


class _Parent:
    def __init__(self) -> None:
        self.stopping: signal.Signals | None = None
        self._child: int | None = None
        self._before = {
            number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)
        }

    def fork(self) -> bool:
        """Tell whether this is still the parent; in the child make it a process of its own."""
        own = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        # A signal between the fork and the next line must not be lost: neither forgotten here,
        # nor taken in the child by the parent's handler.
        both = {signal.SIGTERM, signal.SIGINT}
        signal.pthread_sigmask(signal.SIG_BLOCK, both)
        if self.stopping is not None:
            _end_by(self.stopping)
        child = os.fork()
        if child == 0:
            die_with(own)
            for number, handler in self._before.items():
                signal.signal(number, handler)
            # SIGINT stays blocked: a terminal's Ctrl-C reaches both, and a second signal would
            # end requests that the first one lets finish.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            draw_fresh_randomness()
            return False
        self._child = child
        signal.pthread_sigmask(signal.SIG_UNBLOCK, both)
        return True

    def wait(self) -> int:
        """Return the child's wait status."""
        assert self._child is not None
        _, status = os.waitpid(self._child, 0)
        self._child = None
        return status

    def rest(self, seconds: float) -> None:
        """Sleep; end at once where that was asked for."""
        ends = time.monotonic() + seconds
        while self.stopping is None and (left := ends - time.monotonic()) > 0:
            time.sleep(min(left, 0.05))
        if self.stopping is not None:
            _end_by(self.stopping)

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        self.stopping = signal.Signals(number)
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGTERM)


def _end_as(status: int, stopping: signal.Signals | None) -> NoReturn:
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        _end_by(stopping or signal.Signals(-code))
    sys.exit(code)


def _end_by(number: signal.Signals) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    signal.raise_signal(number)
    sys.exit(128 + number)  # a signal that does not end a process
