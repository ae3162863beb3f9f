"""Talking to Flower's SuperLink as its operator: register nodes; start, watch and stop runs.

All of it goes through the ``flwr`` command, the one interface that Flower documents for this,
with a configuration folder of its own (``FLWR_HOME``), so that a person's ``~/.flwr`` is never
read or written.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from common.errors import ProcessError
from common.folders import write_private
from common.plan import Identifier
from server.settings import CoordinatorSettings

BUNDLE = Path(__file__).with_name("bundle")
CONNECTION = "coordinator"
TIMEOUT_SECONDS = 60.0
LOOPBACK, TLS_SECONDS = "127.0.0.1", 3.0

ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}
"""Every Flower process of ours runs with these."""

RunState = Literal["pending", "starting", "running", "completed", "failed", "stopped"]
T = TypeVar("T", bound=BaseModel)
_identifier: TypeAdapter[str] = TypeAdapter(Identifier)


class _Reply(BaseModel):
    model_config = ConfigDict(extra="ignore", populate_by_name=True)


class _Started(_Reply):
    run_id: Annotated[int, Field(alias="run-id")]


class _Registered(_Reply):
    node_id: Annotated[int, Field(alias="node-id")]


class _Run(_Reply):
    run_id: Annotated[int, Field(alias="run-id")]
    status: str


class _Runs(_Reply):
    runs: list[_Run]


class Node(_Reply):
    """A SuperNode. ``status`` is ``registered``, ``online``, ``offline`` or ``unregistered``."""

    node_id: Annotated[int, Field(alias="node-id")]
    status: str


class _Nodes(_Reply):
    nodes: list[Node]


def start_run(settings: CoordinatorSettings, campaign: str) -> int:
    """Start a Flower run that carries a campaign, and return Flower's run id.

    Raises
    ------
    ProcessError
        If the SuperLink refuses or cannot be reached.
    """
    campaign = _identifier.validate_python(campaign)
    arguments = ("run", str(BUNDLE), CONNECTION, "--run-config", f'campaign="{campaign}"')
    return _flwr(settings, _Started, *arguments).run_id


def run_state(settings: CoordinatorSettings, run_id: int) -> RunState:
    """Return the state of a run.

    Raises
    ------
    ProcessError
        If the SuperLink cannot be reached or does not know the run.
    """
    runs = _flwr(settings, _Runs, "list", CONNECTION, "--run-id", str(run_id)).runs
    for run in runs:
        if run.run_id == run_id:
            main, _, detail = run.status.partition(":")
            return _STATES.get(detail or main, "failed")
    raise ProcessError(f"The SuperLink knows no run {run_id}.")


def stop_run(settings: CoordinatorSettings, run_id: int) -> None:
    """Stop a run; a run that has ended already is left alone.

    Raises
    ------
    ProcessError
        If the SuperLink cannot be reached.
    """
    if run_state(settings, run_id) in ("pending", "starting", "running"):
        _flwr(settings, _Reply, "stop", str(run_id), CONNECTION)


def register_node(settings: CoordinatorSettings, public_key: Path, name: str) -> int:
    """Register a SuperNode's public key, and return Flower's node id.

    Raises
    ------
    ProcessError
        If the key is registered already, or the SuperLink cannot be reached.
    """
    arguments = ("supernode", "register", str(public_key), CONNECTION, "--name", name)
    return _flwr(settings, _Registered, *arguments).node_id


def unregister_node(settings: CoordinatorSettings, node_id: int) -> None:
    """Make the SuperLink forget a SuperNode; its key can never be registered again.

    Raises
    ------
    ProcessError
        If the SuperLink does not know the node, or cannot be reached.
    """
    _flwr(settings, _Reply, "supernode", "unregister", str(node_id), CONNECTION)


def registered_nodes(settings: CoordinatorSettings) -> tuple[Node, ...]:
    """Return every SuperNode that the SuperLink knows and has not been told to forget.

    Raises
    ------
    ProcessError
        If the SuperLink cannot be reached.
    """
    nodes = _flwr(settings, _Nodes, "supernode", "list", CONNECTION).nodes
    return tuple(node for node in nodes if node.status != "unregistered")


_STATES: dict[str, RunState] = {
    "pending": "pending",
    "starting": "starting",
    "running": "running",
    "completed": "completed",
    "failed": "failed",
    "stopped": "stopped",
}


def _flwr(settings: CoordinatorSettings, reply: type[T], *arguments: str) -> T:
    home = settings.data / "flower-operator"
    _write_connection(settings, home)
    command = [str(Path(sys.executable).with_name("flwr")), *arguments, "--format", "json"]
    environment = {**os.environ, **ENVIRONMENT, "FLWR_HOME": str(home), "NO_COLOR": "1"}
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ProcessError(
            f"`flwr {arguments[0]}` did not answer ({type(error).__name__})."
        ) from error
    document = _document(done.stdout)
    if done.returncode != 0 or document is None or document.get("success") is False:
        if (stranger := _stranger(settings)) is not None:
            raise stranger
        raise ProcessError(
            f"Flower refused `flwr {arguments[0]}`: {_reason(document, done)}.",
            action="Check that the SuperLink runs (`wardround local up`) and read its log.",
        )
    try:
        return reply.model_validate(document)
    except ValidationError as error:
        raise ProcessError(f"`flwr {arguments[0]}` answered in an unknown format.") from error


def _write_connection(settings: CoordinatorSettings, home: Path) -> None:
    connection = {
        "address": f"{LOOPBACK}:{settings.superlink_port}",
        "root-certificates": str(settings.keys / "ca.crt"),
    }
    document = {"superlink": {"default": CONNECTION, CONNECTION: connection}}
    text = tomli_w.dumps(document).encode()
    path = home / "config.toml"
    if not path.is_file() or path.read_bytes() != text:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, text)


def _stranger(settings: CoordinatorSettings) -> ProcessError | None:
    """Tell whether what listens on the SuperLink's port is something else; None if it is ours."""
    port, authority = settings.superlink_port, settings.keys / "ca.crt"
    try:
        context = ssl.create_default_context(cafile=authority)
        with (
            socket.create_connection((LOOPBACK, port), TLS_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=LOOPBACK),
        ):
            return None
    except ssl.SSLCertVerificationError as error:
        how = f"its certificate does not verify against {authority} ({error.verify_message})"
    except ssl.SSLError:
        how = "it does not speak TLS"
    except OSError:
        return None  # nothing listens, or it hangs: Flower has said so
    return ProcessError(
        f"What listens on port {port} is not the SuperLink of {settings.folder}: {how}.",
        meaning="Another federation or program of this machine has the port.",
        action="Name the folder of the federation that runs, or end the other and start this one "
        "with `wardround coordinator up`.",
        code="superlink-not-ours",
    )


def _document(text: str) -> dict[str, object] | None:
    start = text.find("{")
    if start < 0:
        return None
    try:
        document, _ = json.JSONDecoder().raw_decode(text[start:])
    except json.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None


def _reason(document: dict[str, object] | None, done: subprocess.CompletedProcess[str]) -> str:
    if document is not None and isinstance(document.get("error-message"), str):
        return str(document["error-message"]).strip().rstrip(".")
    lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    return lines[-1].strip().rstrip(".") if lines else f"exit code {done.returncode}"
