"""Every private Flower name that the runner relies on, in one place.

Flower 1.41 offers no public way to run a SuperNode's messages with a local app, so this module
replaces three functions and a class of its modules.
``tests/client/runner/test_flower_contract.py`` pins the names, their signatures and how they are
called; pyproject pins the minor version.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

import httpx
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.proto.fleet_pb2 import PushMessagesRequest, PushMessagesResponse
from flwr.supercore.exit import exit_handler
from flwr.supercore.superexec import run_superexec as superexec
from flwr.supercore.superexec.executor import ExecutionSpec, Executor
from flwr.supercore.tls import validate_and_resolve_root_certificates
from flwr.supernode import fleet_http_connection as fleet
from flwr.supernode import start_client_internal as supernode
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.runtime import run_clientapp as clientapp

from client.connection import Connection
from client.runner.pace import Pace
from common.errors import ConfigurationError

log = logging.getLogger(__name__)

WAITING_FOR_REPLY_SECONDS = 0.05
FLEET_SECONDS = 30.0
"""Time-out of a request to the SuperLink; as in Flower's own client."""
SITE_ERROR = "site-error"
"""All that a coordinator learns of an exception at a site."""

Answer = Callable[[Message, Context], Message]


def run_message(spec: ExecutionSpec, app: ClientApp) -> NoReturn:
    """Run one message with the site's own app, whatever bundle came with it, and exit.

    Raises
    ------
    SystemExit
        Always; the code is Flower's.
    """
    _replace(clientapp, "install_from_fab", _leave_the_bundle_alone)
    _replace(clientapp, "get_load_client_app_fn", lambda **_: lambda *_: guarded(app))
    clientapp.run_clientapp(
        runtime_api_address=spec.runtime_api_address,
        token=spec.token,
        insecure=spec.insecure,
        certificates=validate_and_resolve_root_certificates(
            spec.root_certificates_path, spec.insecure
        ),
        parent_pid=spec.parent_pid,
        runtime_dependency_install=False,
    )
    raise SystemExit(1)  # run_clientapp exits by itself; coming here is no success


def guarded(app: ClientApp) -> Answer:
    """Wrap an app so that an exception's text stays at the site."""

    def answer(message: Message, context: Context) -> Message:
        try:
            return app(message, context)
        except Exception as error:
            where = " < ".join(
                f"{frame.name}:{frame.lineno}"
                for frame in reversed(traceback.extract_tb(error.__traceback__)[-5:])
            )
            # The text may hold a path or a patient's id: the type and the place must do.
            log.error("event=message-failed error=%s where=%s", type(error).__name__, where)
            refusal = Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=SITE_ERROR)
            return Message(refusal, reply_to=message)

    return answer


def serve(executor: Executor, *, runtime_address: str, secret: bytes) -> NoReturn:
    """Take messages from the SuperNode on this machine and give them to ``executor``, for ever.

    Parameters
    ----------
    executor : Executor
        Starts one process a message.
    runtime_address : str
        ``host:port`` of the SuperNode's Runtime API; plain HTTP, so it must be loopback.
    secret : bytes
        What the SuperNode was given as ``--superexec-auth-secret-file``.
    """
    _replace(superexec, "get_executor", lambda *_, **__: executor)
    superexec.run_superexec(
        runtime_api_address=runtime_address,
        insecure=True,
        superexec_auth_secret=secret,
        runtime_dependency_install=False,
    )
    raise SystemExit(1)


def forget_exit_handlers() -> None:
    """Drop what the parent registered for its own exit; for a child that was just forked."""
    exit_handler.registered_exit_handlers.clear()


def quicken_supernode(pace: Pace, on_connected: Callable[[], None]) -> None:
    """Let a SuperNode in this process ask for work as often as ``pace`` says.

    Flower sleeps three seconds whenever no message waits, and half a second between looks for
    the reply; both are constants in its loop.

    Parameters
    ----------
    pace : Pace
        Waiting times between questions.
    on_connected : callable
        Called before the first wait: the SuperLink knows the node and had no message for it.
    """
    connected = False

    def sleep(seconds: float) -> None:
        nonlocal connected
        if not connected:
            connected = True
            on_connected()
        if seconds < 1.0:  # it holds a message and waits for the reply
            pace.work_seen()
            time.sleep(min(seconds, WAITING_FOR_REPLY_SECONDS))
        else:
            time.sleep(min(seconds, pace.seconds))

    _replace(supernode, "time", SimpleNamespace(sleep=sleep))


def connect_supernode(connection: Connection) -> None:
    """Let a SuperNode in this process connect as the site's settings say.

    Flower's own client shows no certificate and takes a proxy from the environment alone; it
    also follows redirects, which no coordinator of ours sends. With each reply it tells how long
    the app worked, to the microsecond, which grows with the cases that were looked at: the
    receipt's ten seconds are all that a site says of it.
    """

    class SiteFleetClient(FleetHttpClient):
        """Flower's client of the Fleet API, over the site's own connection."""

        def __init__(self, base_url: str, **options: Any) -> None:
            super().__init__(base_url, **options)
            if not isinstance(getattr(self, "_client", None), httpx.Client):
                raise _other_version(f"{FleetHttpClient.__qualname__}._client")
            stock = self._client
            host = httpx.URL(base_url).host
            self._client = connection.client(host, timeout=FLEET_SECONDS, headers={})
            stock.close()

        def PushMessages(self, request: PushMessagesRequest) -> PushMessagesResponse:  # noqa: N802  # Flower's name
            """Send a reply, without the time that it took."""
            untimed = PushMessagesRequest()
            untimed.CopyFrom(request)
            untimed.ClearField("clientapp_runtime_list")
            return super().PushMessages(untimed)

    _replace(fleet, "FleetHttpClient", SiteFleetClient)


def _leave_the_bundle_alone(content: bytes, **_: object) -> None:
    log.info("event=bundle-ignored bytes=%d", len(content))


def _replace(module: ModuleType, name: str, value: object) -> None:
    if not hasattr(module, name):
        raise _other_version(f"{module.__name__}.{name}")
    setattr(module, name, value)


def _other_version(name: str) -> ConfigurationError:
    return ConfigurationError(
        f"This Flower has no {name}.",
        meaning="It is not the version that Wardround was tested with; nothing was run.",
        action="Install the version that pyproject.toml names.",
        code="flower-version",
    )
