"""Finding TCP ports that are free on loopback, and keeping them from other federations.

Between the choice of a port and the server that binds it lie seconds, in which another federation
that starts on this machine could choose the same. So the process that chooses also locks a file
of that port's number. The kernel lets go of it when the process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Collection
from pathlib import Path

from common.errors import ProcessError

FIRST, LAST = 20_000, 32_000
"""Below the range from which Linux takes the ports of outgoing connections (32768 on)."""
TRIES = 2_000

_locks: dict[int, int] = {}
"""Open, locked files by port: this process' claims."""


def is_free(port: int) -> bool:
    """Tell whether a server could listen on ``127.0.0.1:port`` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
    return True


def claim(port: int) -> bool:
    """Take a free port for this process and those that it starts; False if it is another's.

    A claim lasts until this process ends. It binds the federations of one user of this machine;
    where the folder of locks cannot be used, a port that is free counts as claimed.
    """
    if not is_free(port):
        return False
    if port in _locks:
        return True
    try:
        file = os.open(_lock_folder() / str(port), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return False
    _locks[port] = file
    return True


def free_port(taken: Collection[int] = ()) -> int:
    """Claim and return a free port that is not in ``taken``.

    Raises
    ------
    ProcessError
        If none is found.
    """
    for _ in range(TRIES):
        port = random.randint(FIRST, LAST)  # noqa: S311 - no secret
        if port not in taken and claim(port):
            return port
    raise ProcessError(
        "No free TCP port was found on this machine.",
        action="End programs that hold ports, or start again later.",
    )


def _lock_folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"wardround-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or folder.is_symlink():
        raise PermissionError(f"{folder} is somebody else's")
    return folder
