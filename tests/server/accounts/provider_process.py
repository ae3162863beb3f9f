"""The tests' OpenID provider as a running process, and what a browser asks it."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from deploy.certificates import make_authority, make_server_certificate
from deploy.ports import free_port
from tests.server.accounts.openid_provider import CLIENT
from tests.server.signed_in import BASE

ROOT = Path(__file__).parents[3]
CALLBACK = f"{BASE}/sign-in/callback"


@dataclass
class Provider:
    issuer: str
    folder: Path

    def does(self, **wrong: object) -> None:
        (self.folder / "mischief.json").write_text(json.dumps(wrong))

    def settings(self, **changes: object) -> dict[str, object]:
        return {
            **{"issuer": self.issuer, "client_id": CLIENT, "redirect_uri": CALLBACK},
            **{"ca_file": str(self.folder / "ca.crt"), "role_claim": "realm.groups"},
            "client_secret_file": "keys/provider.secret",
            "roles": {"approver": ["approvers"], "viewer": ["guests"]},
            "label": "the hospital's login",
            **changes,
        }


@contextmanager
def provider_running(folder: Path) -> Iterator[Provider]:
    """Run a provider in a process of its own; ``folder`` has its CA, as ``ca.crt``."""
    port = free_port()
    authority = make_authority()
    server = make_server_certificate(authority, hosts=["localhost"])
    (folder / "ca.crt").write_bytes(authority.certificate)
    (folder / "provider.key").write_bytes(server.key)
    (folder / "provider.crt").write_bytes(server.certificate)
    command = [sys.executable, "-m", "tests.server.accounts.openid_provider", str(port), folder]
    process = subprocess.Popen(command, cwd=ROOT)  # type: ignore[arg-type]
    found = Provider(f"https://localhost:{port}", folder)
    began = time.monotonic()
    try:
        while True:
            try:
                browse(found, f"{found.issuer}/keys")
                break
            except httpx.HTTPError:
                assert time.monotonic() - began < 240
                assert process.poll() is None
                time.sleep(0.1)
        yield found
    finally:
        process.kill()
        process.wait()


def browse(provider: Provider, address: str) -> httpx.Response:
    """Ask the provider what a browser would ask it."""
    tls = ssl.create_default_context(cafile=provider.folder / "ca.crt")
    return httpx.get(address, verify=tls, trust_env=False)
