"""Attacks through the gateway: real nginx before a real SuperLink, asked with a site's own keys."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from flwr.superlink.routers.control.router import router as control

from deploy.gateway import configuration
from tests.attacks.attack import Attack, Finding
from tests.deploy.gateways import running_gateway

PATH = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"
ABSENT = "" if shutil.which("nginx", path=PATH) else "nginx is not installed"


def control_api(folder: Path) -> Finding:
    """Whoever holds a site's certificate asks for runs, and for nodes of the thief's own."""
    paths = [route.path for route in control.routes]  # type: ignore[attr-defined]
    with running_gateway(folder / "federation", "north") as gateway:
        answers = [gateway.ask(path, method="POST", body=b"") for path in paths]
    reached = sum(not answer.by_gateway for answer in answers)
    return Finding(reached > 0, f"{reached} of {len(paths)} routes reached the SuperLink")


def pass_everything(patch: pytest.MonkeyPatch) -> None:
    everything = (
        "        location /v1/ {{\n            proxy_pass https://127.0.0.1:{port};\n        }}\n"
    )
    patch.setattr(configuration, "FLEET_ROUTES", {"any": "64k"})
    patch.setattr(configuration, "_FLEET", everything)


ATTACKS = (
    Attack(
        "control-api",
        "stolen site key",
        "Flower's Control API from a site",
        "the gateway names what exists",
        control_api,
        pass_everything,
        absent=ABSENT,
    ),
)
