"""Which folder a federation may be made in, and where to look for a demo's."""

from __future__ import annotations

from pathlib import Path

from common.errors import ConfigurationError

FEDERATION = "federation"
"""Where in its folder a demo's federation is."""

OWN = {"coordinator", "sites", "logs", "graphs", "lost+found"}
"""What a federation's folder holds, and what a new file system does; hidden files count as none."""


def refuse_strange_folder(folder: Path) -> None:
    """Refuse a folder of other things: a federation's keys would lie among them.

    Raises
    ------
    ConfigurationError
        With code ``folder-not-new``, where it is no directory, or holds other things and no
        federation.
    """
    if not folder.exists() or (folder.is_dir() and (_is_ours(folder) or _is_empty(folder))):
        return
    raise ConfigurationError(
        f"{folder} is no new folder, and holds no federation.",
        meaning="Keys and cases would be mixed with what is there; nothing was written.",
        action=where_inside(folder)
        or "Name one that does not exist yet, an empty one, or an earlier federation's.",
        code="folder-not-new",
    )


def where_inside(folder: Path) -> str:
    """Say where the federation is in the folder of a demo; empty where there is none."""
    inside = folder / FEDERATION
    return f"Its federation is in {inside}: give that as --folder." if _is_ours(inside) else ""


def _is_ours(folder: Path) -> bool:
    if (folder / "coordinator" / "coordinator.toml").is_file():
        return True
    return any(folder.glob("sites/*/site.toml"))


def _is_empty(folder: Path) -> bool:
    return all(path.name in OWN or path.name.startswith(".") for path in folder.iterdir())
