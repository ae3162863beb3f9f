"""Finding TCP ports that are free on loopback."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection

from common.errors import ProcessError

FIRST, LAST = 20_000, 32_000
"""Below the range from which Linux takes the ports of outgoing connections (32768 on)."""
TRIES = 2_000


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


def free_port(taken: Collection[int] = ()) -> int:
    """Return a free port that is not in ``taken``.

    Raises
    ------
    ProcessError
        If none is found.
    """
    for _ in range(TRIES):
        port = random.randint(FIRST, LAST)  # noqa: S311 - no secret
        if port not in taken and is_free(port):
            return port
    raise ProcessError("No free TCP port was found on this machine.")
