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

from client.forking import ANSWERS, die_with, draw_fresh_randomness, fork_dangers

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
FAILED_STARTS = 3
"""In a row, after which the parent ends as its last child did.

Few, so that `deploy.processes`, which counts ends within two minutes, sees enough of them although
a parent takes ten seconds for its imports.
"""


@dataclass(frozen=True)
class Lives:
    """What the children's lives so far say about the next one.

    Attributes
    ----------
    pause : float
        How long to wait before the next child, seconds: doubled while they live but shortly.
    failed_starts : int
        How many in a row ended shortly without ever having answered. Whoever kills a service that
        answered does not count, however often: that one can start.
    """

    pause: float = FIRST_PAUSE
    failed_starts: int = 0

    def after(self, life: float, *, answered: bool) -> Lives:
        """Return what is known after a child which lived ``life`` seconds."""
        if life >= LONG_LIFE:
            return Lives()
        pause = min(2 * self.pause, LONGEST_PAUSE)
        return Lives(pause, 0 if answered else self.failed_starts + 1)

    @property
    def cannot_start(self) -> bool:
        """Whether another child would do no better."""
        return self.failed_starts >= FAILED_STARTS


def fork_again_when_killed() -> None:
    """Return in a child, and in another one each time that a child is killed or crashes.

    The parent itself never returns: it passes SIGTERM and SIGINT on as SIGTERM, and ends as its
    last child ended, which is the one that nobody killed, or the last of `FAILED_STARTS` in a row
    that never gave `client.forking.ANSWERS`: whoever started the parent can then tell that the
    service does not start. A child dies with its parent. Where a fork is not safe (not on Linux, a
    second thread, an open GPU) there is no parent: this returns at once.
    """
    dangers = fork_dangers() if sys.platform == "linux" else "another system than Linux"
    if dangers:
        log.warning("event=no-standby reason=%s", dangers.replace(" ", "-"))
        return
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page that it looks at
    parent, lives = _Parent(), Lives()
    while parent.fork():
        begun = time.monotonic()
        status = parent.wait()
        pause = lives.pause
        lives = lives.after(time.monotonic() - begun, answered=bool(ANSWERS))
        ended = -os.waitstatus_to_exitcode(status)
        if parent.stopping is not None or ended not in CRASHES:
            _end_as(status, parent.stopping)
        name = signal.Signals(ended).name
        if lives.cannot_start:
            log.error("event=service-does-not-start signal=%s tries=%d", name, FAILED_STARTS)
            _end_as(status, None)
        log.error("event=service-killed signal=%s again_after=%.1f", name, pause)
        parent.rest(pause)


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
        ANSWERS.take_back()
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
    if number != signal.SIGKILL:  # of which there is no handler to take away
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    signal.raise_signal(number)
    sys.exit(128 + number)  # a signal that does not end a process
