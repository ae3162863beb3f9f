"""``python guard.py PARENT COMMAND…``: become COMMAND, and be killed when PARENT dies.

Runs before anything else in a child, with no import beyond the standard library. On Linux the
kernel keeps the promise across exec (prctl(2), PR_SET_PDEATHSIG), even when the parent is
killed with SIGKILL.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Set the death signal, check that the parent still lives, and exec."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the call above
        sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
