"""``python -m client.runner.supernode --folder SITE``: Flower's SuperNode, quick while busy.

It connects out to the coordinator's SuperLink, proves who it is with the site's node key, and
hands messages to the site's runner over loopback.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from pathlib import Path

from flwr.supernode.cli import flower_supernode

from client.connection import Connection
from client.runner.flower import connect_supernode, quicken_supernode
from client.runner.pace import Pace
from client.settings import SiteSettings
from common.errors import WardroundError

log = logging.getLogger(__name__)

REFUSED_FOR_SECONDS = 75.0
"""A SuperLink refuses a node that it still holds for online, up to a minute after a crash."""
RETRY_SECONDS = 2.0
MODULE = "client.runner.supernode"
FIRST_TRY = "WARDROUND_NODE_FIRST_TRY"


def arguments(settings: SiteSettings) -> list[str]:
    """Return the arguments of ``flower-supernode`` for a site."""
    return [
        "--superlink",
        settings.superlink,
        "--root-certificates",
        str(settings.trust / "ca.crt"),
        "--auth-supernode-private-key",
        str(settings.keys / "node"),
        "--host",
        "127.0.0.1",
        "--port",
        str(settings.runtime_port),
        "--isolation",
        "process",
        "--superexec-auth-secret-file",
        str(settings.keys / "superexec.secret"),
    ]


def main() -> None:
    """Run the SuperNode until it is stopped."""
    parser = argparse.ArgumentParser(description="Run a site's SuperNode.")
    parser.add_argument("--folder", type=Path, required=True, help="the site's folder")
    parser.add_argument("--ready", type=Path, help="a file to write once it is connected")
    given = parser.parse_args()
    settings = SiteSettings.read(given.folder)

    is_connected = False

    def connected() -> None:
        nonlocal is_connected
        is_connected = True
        if given.ready is not None:
            given.ready.touch()

    connection = Connection.of(settings)
    try:
        connection.tls()
    except WardroundError as error:
        sys.exit(f"{error.code}: {error.line()}")
    connect_supernode(connection)
    quicken_supernode(Pace(busy=0.25, idle=3.0), connected)
    command = list(sys.argv)
    sys.argv = ["flower-supernode", *arguments(settings)]
    try:
        flower_supernode()
    except SystemExit as ended:
        if ended.code and not is_connected:
            _try_again(command[1:])
        raise


def _try_again(arguments: list[str]) -> None:
    """Become a new SuperNode, if the SuperLink may just not know yet that the last one died."""
    first_try = float(os.environ.setdefault(FIRST_TRY, str(time.time())))
    if time.time() - first_try > REFUSED_FOR_SECONDS:
        return
    log.warning("event=node-refused retry_seconds=%g", RETRY_SECONDS)
    time.sleep(RETRY_SECONDS)  # below the five seconds after which Flower forces its exit
    os.execv(sys.executable, [sys.executable, "-m", MODULE, *arguments])  # noqa: S606


if __name__ == "__main__":
    main()
