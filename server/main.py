"""The coordinator service: `python -m server.main --folder DIR`.

Serves releases, health, metrics and, to those who have an account, the coordinator's page over
TLS, publishes what is approved and keeps the release timestamp fresh. SIGTERM and SIGINT end it
after the requests in progress.
"""

from __future__ import annotations

import argparse
import logging
import signal
import ssl
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from common.errors import ConfigurationError, WardroundError
from common.folders import refuse_readable_by_others
from common.logs import configure_logging
from server.api.application import create_app
from server.api.services import CoordinatorServices
from server.publishing.publisher import ReleasePublisher
from server.publishing.service import background_tasks
from server.registry.registry import Registry
from server.reports.making import report_task
from server.rounds.leftovers import leftovers_task
from server.settings import CoordinatorSettings
from server.triggers.creation import trigger_task

if TYPE_CHECKING:
    from common.accounts.provider import IdentityProvider

logger = logging.getLogger(__name__)

GRACE_SECONDS = 10
LEVELS = {"alembic": logging.WARNING}


def compose(settings: CoordinatorSettings) -> CoordinatorServices:
    """Put the service's parts together.

    Raises
    ------
    ConfigurationError
        If a key is absent, or readable by other users (code ``key-readable``).
    ReleaseError
        If the release repository was never made (code ``repository-missing``) or is damaged.
    StoreError
        If the registry cannot be used.
    """
    check_keys(settings)
    publisher = ReleasePublisher(settings)
    publisher.timestamp_expires()
    registry = Registry.open(settings)
    registry.audit_releases()
    tasks = background_tasks(
        publisher, registry, settings.models, timestamp_seconds=settings.timestamp_seconds
    )
    tasks = (*tasks, report_task(settings, registry), trigger_task(settings))
    tasks = (*tasks, leftovers_task(settings, registry))
    return CoordinatorServices(settings, publisher, registry, tasks, provider=_provider(settings))


def _provider(settings: CoordinatorSettings) -> IdentityProvider | None:
    if settings.provider is None:
        return None
    try:
        from common.accounts.provider import IdentityProvider
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "coordinator.toml has a table [provider], but OpenID Connect is not installed.",
            meaning="Nobody could sign in through the identity provider.",
            action="Install it with `pip install 'wardround[oidc]'`, or remove the table.",
            code="oidc-missing",
        ) from error
    return IdentityProvider(settings.provider, folder=settings.folder)


def check_keys(settings: CoordinatorSettings) -> None:
    """Refuse absent TLS files, and any secret in ``keys/`` that others can read.

    Raises
    ------
    ConfigurationError
        Naming the file, with code ``key-missing`` or ``key-readable``.
    """
    for name in ("server.key", "server.crt"):
        if not (settings.keys / name).is_file():
            raise ConfigurationError(
                f"There is no {settings.keys / name}.",
                action="Provision the coordinator with `wardround provision`.",
                code="key-missing",
            )
    public = {".crt", ".pub"}
    for path in sorted(settings.keys.rglob("*")):
        if path.is_file() and path.suffix not in public:
            refuse_readable_by_others(path)


def server_for(services: CoordinatorServices) -> uvicorn.Server:
    """Return the TLS server, not yet running."""
    settings = services.settings
    config = uvicorn.Config(
        create_app(services),
        host=settings.host,
        port=settings.port,
        ssl_certfile=settings.keys / "server.crt",
        ssl_keyfile=settings.keys / "server.key",
        ssl_context_factory=_tls,
        timeout_graceful_shutdown=GRACE_SECONDS,
        limit_concurrency=512,
        access_log=False,
        server_header=False,
        log_config=None,
        lifespan="on",
        ws="none",
    )
    return uvicorn.Server(config)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the service; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m server.main", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="coordinator folder")
    options = parser.parse_args(arguments)
    configure_logging("text", levels=LEVELS)
    try:
        settings = CoordinatorSettings.read(options.folder)
        configure_logging(settings.log_format, levels=LEVELS)
        services = compose(settings)
        server = server_for(services)
    except WardroundError as error:
        logger.error("coordinator-not-started code=%s %s", error.code, error.line())
        return 2 if isinstance(error, ConfigurationError) else 1
    _end_cleanly(server, services)
    try:
        server.run()
    finally:
        services.registry.close()
    logger.info("coordinator-stopped")
    return 0 if server.started else 1


def _end_cleanly(server: uvicorn.Server, services: CoordinatorServices) -> None:
    # uvicorn raises the signal that ended it once more; without a handler of our own a clean
    # end would look like a kill to whoever supervises this process.
    def end(_number: int, _frame: FrameType | None) -> None:
        services.ending.set()  # pages that listen for changes hold connections open
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)


def _tls(_config: uvicorn.Config, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    context = default()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


if __name__ == "__main__":
    sys.exit(main())
