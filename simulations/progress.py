"""How far a simulated campaign is, as its registry tells while it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from server.registry.registry import Registry

POLL_SECONDS = 1.0


@contextmanager
def watching(registry: Registry, campaign: str, on_round: Callable[[int], None]) -> Iterator[None]:
    """Tell ``on_round`` about finished training rounds while the body runs."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(POLL_SECONDS):
            rounds = registry.rounds(campaign)
            on_round(sum(r.purpose == "train" and r.state == "finished" for r in rounds))

    watcher = threading.Thread(target=watch, name="simulation-progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
