"""``python -m client.runner --folder SITE``: run the site's messages until stopped."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from client.runner.service import run
from client.settings import SiteSettings
from common.errors import WardroundError


def main() -> None:
    """Import everything once, then fork a child for each message of the SuperNode."""
    parser = argparse.ArgumentParser(description="Run a site's Flower messages, warm.")
    parser.add_argument("--folder", type=Path, required=True, help="the site's folder")
    parser.add_argument("--ready", type=Path, help="a file to write when everything is imported")
    parser.add_argument("--app", default="client.app", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        force=True,  # some imports above add a handler of their own
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for every question
    logging.getLogger("flwr").propagate = False  # it has a handler of its own
    try:
        run(SiteSettings.read(arguments.folder), ready=arguments.ready, module=arguments.app)
    except WardroundError as error:
        sys.exit(f"{error.code}: {error.line()}")


if __name__ == "__main__":
    main()
