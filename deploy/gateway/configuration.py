"""Rendering nginx's configuration: which routes a site may use, and whose node key is whose."""

from __future__ import annotations

import base64
import grp
import os
import pwd
import re
import shutil
import signal
import subprocess
from importlib import resources
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from common.errors import ConfigurationError, ProcessError
from common.folders import write_public
from deploy.pki import book
from deploy.ports import reached_at
from server.settings import CoordinatorSettings

FLEET_ROUTES: dict[str, str] = {
    "activate-node": "64k",
    "deactivate-node": "64k",
    "send-node-heartbeat": "64k",
    "pull-messages": "64k",
    "push-messages": "4m",
    "get-run": "64k",
    "get-fab": "64k",
    "push-object": "8m",
    "pull-object": "64k",
    "confirm-message-received": "64k",
}
"""The routes of Flower's Fleet API that a site uses, and the largest body of each. Flower sends
arrays in pieces of 5 MiB (``FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE``), a message's tree whole."""

REFUSED_FLEET_ROUTES = ("register-node", "unregister-node")
"""A site must not be able to make nodes or to remove them; its operator does both."""

REQUESTS_PER_SECOND = 200
BURST = 1000
NGINX_SECONDS = 20.0

_FLEET = """\
        location = /v1/fleet/{route} {{
            limit_except POST {{ deny all; }}
            if ($is_own_node = 0) {{ return 401; }}
            client_max_body_size {size};
            proxy_pass https://127.0.0.1:{port}/v1/fleet/{route};
        }}
"""


def render(settings: CoordinatorSettings) -> Path:
    """Write ``gateway/nginx.conf`` and ``gateway/sites.map``; return the former's path.

    Raises
    ------
    ConfigurationError
        If a path of the coordinator could not stand in nginx's syntax (code ``gateway-path``).
    """
    state, logs = settings.data / "gateway", settings.folder / "logs"
    for folder in (settings.gateway, state, logs):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    routes = (
        _FLEET.format(route=route, size=size, port=settings.superlink_port)
        for route, size in FLEET_ROUTES.items()
    )
    host = f"[{settings.gateway_host}]" if ":" in settings.gateway_host else settings.gateway_host
    values = {
        "USER": _user(settings),
        "STATE": _path(state),
        "LOGS": _path(logs),
        "FOLDER": _path(settings.gateway),
        "KEYS": _path(settings.keys),
        "PKI": _path(settings.pki),
        "RATE": str(REQUESTS_PER_SECOND),
        "BURST": str(BURST),
        "LISTEN": f"{host}:{settings.gateway_port}",
        "SERVICE": reached_at(settings.host, settings.port),
        "FLEET": "\n".join(routes),
    }
    template = (resources.files("deploy.gateway") / "nginx.conf").read_text("utf-8")
    text = re.sub(r"@([A-Z]+)@", lambda match: values[match[1]], template)
    write_public(settings.gateway / "sites.map", _sites_map(settings).encode())
    write_public(settings.gateway / "nginx.conf", text.encode())
    return settings.gateway / "nginx.conf"


def nginx() -> Path:
    """Return the path of nginx.

    Raises
    ------
    ConfigurationError
        With code ``nginx-missing``.
    """
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise ConfigurationError(
            "nginx is not installed on this machine.",
            meaning="The gateway cannot be started; nothing else was.",
            action="Install it (Debian: apt-get install nginx-light), or go without --gateway.",
            code="nginx-missing",
        )
    return Path(found)


def check(settings: CoordinatorSettings) -> None:
    """Let nginx read the rendered configuration.

    Raises
    ------
    ProcessError
        With code ``gateway-configuration`` and nginx's own words.
    """
    configuration = str(settings.gateway / "nginx.conf")
    error_log = str(settings.folder / "logs" / "gateway-error.log")
    command = [str(nginx()), "-t", "-q", "-e", error_log, "-c", configuration]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=NGINX_SECONDS, check=False
    )
    if done.returncode != 0:
        raise ProcessError(
            f"nginx does not accept {configuration}: {done.stderr.strip()}",
            code="gateway-configuration",
        )


def reload(settings: CoordinatorSettings) -> bool:
    """Render anew and let a running gateway take it up; tell whether one runs."""
    if not (settings.gateway / "nginx.conf").is_file():
        return False
    render(settings)
    pid = _running(settings)
    if pid is None:
        return False
    check(settings)
    os.kill(pid, signal.SIGHUP)
    return True


def _running(settings: CoordinatorSettings) -> int | None:
    """Return the id of the running master, never that of a stranger with an old id of ours."""
    try:
        pid = int((settings.data / "gateway" / "nginx.pid").read_text("utf-8"))
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if str(settings.gateway / "nginx.conf").encode() in words else None


def _sites_map(settings: CoordinatorSettings) -> str:
    lines = []
    for site, public in sorted(book.nodes(settings).items()):
        key = serialization.load_ssh_public_key(public)
        pem = key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        lines.append(f'"CN={site} {base64.b64encode(pem).decode()}" 1;')
    return "\n".join(lines) + "\n"


def _user(settings: CoordinatorSettings) -> str:
    """Return the ``user`` directive: started by root, nginx's workers become the files' owner."""
    if os.geteuid() != 0:
        return "# Run by an ordinary account, whose files these are."
    owner = pwd.getpwuid(settings.folder.stat().st_uid)
    return f"user {owner.pw_name} {grp.getgrgid(owner.pw_gid).gr_name};"


def _path(path: Path) -> str:
    if re.search(r"[\x00-\x1f\"\\$]", str(path)):
        raise ConfigurationError(
            f"{path} holds characters that nginx's configuration cannot.",
            action="Move the federation to a folder without quotes, backslashes and dollars.",
            code="gateway-path",
        )
    return str(path)
