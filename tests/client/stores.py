"""A site folder with a case store, and pictures to put into it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from client.cases.pseudonyms import Pseudonyms
from client.cases.store import CaseStore
from client.settings import SiteSettings
from common.folders import write_public

TASK = "dermoscopy"


def make_site(folder: Path, *, database_url: str | None = None, **fields: object) -> SiteSettings:
    folder.mkdir(parents=True, exist_ok=True)
    # Atomically: several processes of a test may open one site.
    write_public(folder / "site.toml", f'name = "north"\ntask = "{TASK}"\n'.encode())
    if not (folder / "keys" / "pseudonyms").exists():
        Pseudonyms.create(folder / "keys" / "pseudonyms")
    settings = SiteSettings.read(folder)
    return settings.model_copy(update={"database_url": database_url, **fields})


def open_store(folder: Path, *, database_url: str | None = None, **fields: object) -> CaseStore:
    return CaseStore.open(make_site(folder, database_url=database_url, **fields))


def picture(seed: int, *, side: int = 24, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, kind)
    return target.getvalue()
