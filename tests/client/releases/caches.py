"""What is in a release cache, and what takes it away: damage, and a coordinator that is gone."""

from __future__ import annotations

import socket
from pathlib import Path

from client.releases.files import LocalRelease
from client.settings import SiteSettings


def version_of(release: LocalRelease | None) -> int | None:
    return release.version if release else None


def versions_on_disk(site: SiteSettings) -> set[str]:
    return {path.name for path in site.releases.glob("v*")}


def with_port(site: SiteSettings, port: int) -> SiteSettings:
    return site.model_copy(update={"coordinator_url": f"https://127.0.0.1:{port}"})


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
