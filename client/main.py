"""The inference service of one site: ``python -m client.main --folder SITE``.

Its parts are put together by `client.composition`. It binds to loopback unless TLS or
``allow_plain_http`` is set, and to nothing else where ``access`` is ``open``.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from client.api.connections import raise_file_limit
from client.cases.store import CaseStore
from client.composition.application import make_application
from client.composition.exposure import check_exposure
from client.composition.service import put_together
from client.composition.serving import prepare_interpreter, server_config
from client.releases.watcher import Releases
from client.settings import SiteSettings
from common import logs
from common.errors import ConfigurationError, WardroundError
from common.logs import LogFormat

__all__ = ["check_exposure", "configure_logging", "main", "make_app", "serve", "server_config"]

log = logging.getLogger(__name__)

EXIT_USAGE = 2


def make_app(
    settings: SiteSettings, *, releases: Releases | None = None, store: CaseStore | None = None
) -> FastAPI:
    """Put the service together.

    Parameters
    ----------
    settings : SiteSettings
        The site's.
    releases : Releases, optional
        Where models come from; the site's release cache by default.
    store : CaseStore, optional
        The site's by default, which is migrated.

    Returns
    -------
    FastAPI
        Its lifespan starts and stops the release watcher and the inference thread.

    Raises
    ------
    ConfigurationError, StoreError
        If the site's folder or database cannot be used.
    """
    return make_application(put_together(settings, releases=releases, store=store))


def serve(settings: SiteSettings) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises
    ------
    ConfigurationError, StoreError
        If the service cannot start.
    """
    check_exposure(settings)
    scheme = "https" if settings.tls_certificate else "http"
    app = make_app(settings)
    log.info("event=serving url=%s://%s:%d", scheme, settings.host, settings.port)
    prepare_interpreter()
    raise_file_limit()
    uvicorn.Server(server_config(settings, app)).run()


def configure_logging(log_format: LogFormat = "text") -> None:
    """Log to standard error, one line an event; libraries from WARNING on."""
    ours = dict.fromkeys(("client", "common", "uvicorn.error"), logging.INFO)
    logs.configure_logging(log_format, level=logging.WARNING, levels=ours)


def main() -> None:
    """Read the command line and serve. Exit code 2: the settings are wrong; 1: another failure."""
    parser = argparse.ArgumentParser(prog="python -m client.main", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="the site's folder")
    arguments = parser.parse_args()
    configure_logging()
    try:
        settings = SiteSettings.read(arguments.folder)
        configure_logging(settings.log_format)
        serve(settings)
    except WardroundError as error:
        log.error("event=not-started code=%s: %s", error.code, error.line())
        sys.exit(EXIT_USAGE if isinstance(error, ConfigurationError) else 1)


if __name__ == "__main__":
    main()
