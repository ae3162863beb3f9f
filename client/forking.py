"""What a process that forks must see to, before the fork and in the child."""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import torch

PR_SET_PDEATHSIG = 1


def fork_dangers() -> str:
    """Return why a fork now could hang or lose the GPU; "" if it could not.

    POSIX fork copies only the calling thread: a lock that another one holds stays locked in the
    child. CUDA does not work in the child of a process that opened it.
    """
    tasks = Path("/proc/self/task")
    threads = len(list(tasks.iterdir())) if tasks.is_dir() else threading.active_count()
    gpu_open: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    found = [f"{threads} threads"] if threads > 1 else []
    return " and ".join([*found, "an open GPU"] if gpu_open else found)


def draw_fresh_randomness() -> None:
    """Seed every generator of this process from the system's random source.

    A forked child inherits its parent's generators: without this, every round of a site would
    draw the SAME privacy noise and the same Poisson samples, and the noise would cancel out of
    the difference between two rounds.
    """
    random.seed()
    np.random.seed(np.frombuffer(os.urandom(32), dtype=np.uint32))
    torch.manual_seed(int.from_bytes(os.urandom(8), "little", signed=True))


def die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies (Linux prctl(2))."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


class Sign:
    """One yes that a forked child gives its parent: a byte that both see, also after a kill."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 1)

    def give(self) -> None:
        """Say yes; in a process that nobody forked, nobody sees it."""
        self._shared[0] = 1

    def take_back(self) -> None:
        """Begin anew, before the next fork."""
        self._shared[0] = 0

    def __bool__(self) -> bool:
        return self._shared[0] == 1


ANSWERS = Sign()
"""Given by the site's service once a release answers (`client.standby.parent` looks at it)."""
