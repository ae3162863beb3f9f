"""Finding TCP ports that are free on loopback, and keeping them from other federations.

Between the choice of a port and the server that binds it lie seconds, in which another federation
that starts on this machine could choose the same. So the process that chooses also locks a file
of that port's number. The kernel lets go of it when the process ends, however it ends.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

from common.errors import ConfigurationError, ProcessError

FIRST, LAST = 20_000, 32_000
"""Below the range from which Linux takes the ports of outgoing connections (32768 on)."""
TRIES = 2_000

_locks: dict[int, int] = {}
"""Open, locked files by port: this process' claims."""


def reached_at(host: str, port: int) -> str:
    """Return ``host:port`` by which this machine reaches a server that binds to ``host``.

    Loopback where it binds to every address; an IPv6 address stands in brackets.
    """
    everywhere = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104
    found = everywhere.get(host, host)
    return f"[{found}]:{port}" if ":" in found else f"{found}:{port}"


def is_free(port: int) -> bool:
    """Tell whether a server could listen on ``127.0.0.1:port`` now."""
    return _obstacle("127.0.0.1", port) is None


def require_ports(wanted: Mapping[str, tuple[str, int]], file: Path) -> None:
    """Refuse to start where a port is taken, before anything is started.

    Parameters
    ----------
    wanted : mapping of str to (str, int)
        The setting's name in ``file`` to the host and port that it stands for; port 0 is any.
    file : Path
        The settings file, to be named.

    Raises
    ------
    ConfigurationError
        With code ``port-in-use`` if a port is another program's or wanted twice, and
        ``port-unusable`` if this machine does not give it for another reason.
    """
    seen: dict[int, str] = {}
    for key, (host, port) in wanted.items():
        if port == 0:
            continue
        if port in seen:
            raise _in_use(
                f"Port {port} is both {seen[port]} and {key}.", f"Change one of them in {file}."
            )
        seen[port] = key
        obstacle = _obstacle(host, port)
        if obstacle is None:
            continue
        if obstacle.errno == errno.EADDRINUSE:
            raise _in_use(
                f"Port {port} of {key} is in use.",
                f"End the program that listens there (`ss -ltnp` names it), or change {key} in "
                f"{file}.",
            )
        raise ConfigurationError(
            f"Nothing can listen on {host} port {port} ({obstacle.strerror or obstacle}).",
            meaning="Nothing was started.",
            action=f"Change {key} in {file}.",
            code="port-unusable",
        )


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


def _obstacle(host: str, port: int) -> OSError | None:
    """Return why no server could listen there now; None where one could."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        return error
    return None


def _in_use(what: str, action: str) -> ConfigurationError:
    return ConfigurationError(
        what, meaning="Nothing was started.", action=action, code="port-in-use"
    )


def _lock_folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"wardround-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or folder.is_symlink():
        raise PermissionError(f"{folder} is somebody else's")
    return folder
