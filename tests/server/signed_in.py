"""Accounts and signed-in clients for tests of the coordinator's page and interface."""

from __future__ import annotations

import re
from datetime import timedelta

import httpx
from fastapi.testclient import TestClient

from server.accounts.records import Role
from server.registry.registry import Registry

PASSWORD = "four unrelated words here"
BASE = "https://localhost"


def account(registry: Registry, name: str, role: Role) -> None:
    registry.accounts.add(name, role, password=PASSWORD, by="console-test")


def bearer(registry: Registry, role: Role = "viewer") -> dict[str, str]:
    """Return the headers of a script with an account of its own."""
    name = f"script-{role}"
    if name not in {found.name for found in registry.accounts.all()}:
        registry.accounts.add(name, role, password=None, by="console-test")
    token = registry.accounts.issue_token(name, life=timedelta(days=1), by="console-test")
    return {"Authorization": f"Bearer {token}"}


def token_of(page: httpx.Response) -> str:
    """Return the form token of a page."""
    found = re.search(r'name="token" value="([0-9a-f]{64})"', page.text)
    assert found is not None, page.text
    return found[1]


def seen_of(page: httpx.Response) -> str:
    """Return what a page's forms say that it showed."""
    found = set(re.findall(r'name="seen" value="([0-9a-f]{64})"', page.text))
    assert len(found) == 1, page.text
    return str(found.pop())


def sign_in(client: TestClient, name: str, password: str = PASSWORD) -> httpx.Response:
    page = client.get("/sign-in")
    fields = {"name": name, "password": password, "token": token_of(page)}
    return client.post("/sign-in", data=fields, follow_redirects=False)


def post(client: TestClient, page: str, address: str, **fields: object) -> int:
    """Send a form as the page that holds it would; returns the status."""
    shown = client.get(page)
    sent = {"token": token_of(shown), **_hidden(shown.text, address), **fields}
    return client.post(address, data=sent).status_code  # type: ignore[arg-type]


def _hidden(page: str, address: str) -> dict[str, str]:
    """Return what the page's forms that go there send by themselves; nothing where it has none."""
    forms = re.findall(rf'<form[^>]* action="{re.escape(address)}"[^>]*>(.*?)</form>', page, re.S)
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', " ".join(forms)))
