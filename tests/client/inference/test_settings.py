"""How many lanes a site's service has."""

from __future__ import annotations

import os

import pytest

from client.inference.settings import InferenceSettings

CORES = os.cpu_count() or 1


@pytest.mark.parametrize(
    ("asked", "on_cpu", "threads", "lanes"),
    [(0, True, 0, CORES + 1), (0, True, 3, 3), (0, False, 0, 2), (5, True, 3, 5)],
    ids=["one a core and one more", "the site's bound", "on a GPU", "as asked"],
)
def test_lanes(asked: int, on_cpu: bool, threads: int, lanes: int) -> None:
    settings = InferenceSettings(lanes=asked)
    assert settings.limits(on_cpu=on_cpu, threads=threads).lanes == lanes
