"""``python -m client.runner.supernode --folder SITE``: Flower's SuperNode, quick while busy.

It connects out to the coordinator's SuperLink, proves who it is with the site's node key, and
hands messages to the site's runner over loopback.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from flwr.supernode.cli import flower_supernode

from client.runner.flower import quicken_supernode
from client.runner.pace import Pace
from client.settings import SiteSettings


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

    def connected() -> None:
        if given.ready is not None:
            given.ready.touch()

    quicken_supernode(Pace(busy=0.2, idle=3.0), connected)
    sys.argv = ["flower-supernode", *arguments(settings)]
    flower_supernode()


if __name__ == "__main__":
    main()
