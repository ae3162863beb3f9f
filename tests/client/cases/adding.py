"""Cases put into a store, with little said, and what is on disk after it."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.cases.store import Case, CaseStore
from common.errors import CaseRefused
from tests.client.stores import TASK, picture

CLASSES = ("nv", "mel")


def add(store: CaseStore, seed: int, **fields: object) -> Case:
    values: dict[str, object] = {"task": TASK, "patient_id": None, "label": "nv", "source": "test"}
    return store.add(picture(seed), **{**values, **fields})  # type: ignore[arg-type]


def images_on_disk(folder: Path) -> set[str]:
    return {p.name for p in (folder / "data" / "images").rglob("*") if p.is_file()}


def refusal(store: CaseStore, seed: int, **fields: object) -> CaseRefused:
    with pytest.raises(CaseRefused) as caught:
        add(store, seed, **fields)
    return caught.value
