"""A Wardround site's own service with one release, its coordinator left out.

``python -m tests.bench.peers.wardround_site FOLDER PORT``: the app of `client.main` as a hospital
runs it: checks, audit log, metrics, access log. Only where releases come from is faked.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import uvicorn

from client.composition.serving import prepare_interpreter, server_config
from client.main import configure_logging, make_app
from common.recipe import Recipe, load_recipe
from tests.bench.peers.services import ARCHITECTURE, SIDE
from tests.client.serving import FakeReleases, release, site_settings


def recipe() -> Recipe:
    """Return the dermatoscopy task with the peers' network, its BatchNorm frozen."""
    return load_recipe("dermoscopy").with_changes(
        model=ARCHITECTURE, image_size=SIDE, normalisation="frozen"
    )


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("port", type=int)
    given = parser.parse_args()
    configure_logging()
    # The same few pictures come again and again: every answer is to be computed.
    asked = {"kept_answers": 0}
    settings = site_settings(given.folder, port=given.port, threads=0, inference=asked)
    releases = FakeReleases(release(given.folder, 1, recipe=recipe()))
    app = make_app(settings, releases=releases)
    prepare_interpreter()
    uvicorn.Server(server_config(settings, app)).run()


if __name__ == "__main__":
    main()
