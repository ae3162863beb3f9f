"""Giving each served network its faster runtime, without making a release wait for it."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeAlias

from client.inference.engine import InferenceEngine
from client.inference.graphs import GraphStore
from client.releases.cache import LocalRelease
from client.releases.watcher import Alarm
from common.errors import ModelError

log = logging.getLogger(__name__)

Load: TypeAlias = Callable[[LocalRelease], InferenceEngine]


class Quickener:
    """Loads engines; those whose graph is there come out on ONNX Runtime, others follow later.

    Where a network's graph has to be made first, torch answers meanwhile. Where it cannot be
    made, or answers differently, torch goes on, and an alarm says so.

    Parameters
    ----------
    load : callable
        Makes a self-tested engine on torch.
    graphs : GraphStore
        Closed by `close`.
    """

    def __init__(self, load: Load, graphs: GraphStore) -> None:
        self._load = load
        self._graphs = graphs
        self._alarm: Alarm | None = None
        self._threads: list[threading.Thread] = []

    def load(self, release: LocalRelease) -> InferenceEngine:
        """Load a release; raises as the loader does, and never for want of a graph."""
        return self.hasten(self._load(release))

    def hasten(self, engine: InferenceEngine) -> InferenceEngine:
        """Have an engine run on ONNX Runtime, now or once its graph is made; return the engine."""
        if self._graphs.find(engine.recipe) is not None:
            self._quicken(weakref.ref(engine))
        else:
            thread = threading.Thread(
                target=self._quicken, args=(weakref.ref(engine),), name="graphs", daemon=True
            )
            self._threads = [*(t for t in self._threads if t.is_alive()), thread]
            thread.start()
        return engine

    def alarms(self) -> tuple[Alarm, ...]:
        """Return why the newest network runs on torch, if that is for want of a graph."""
        alarm = self._alarm
        return () if alarm is None else (alarm,)

    def close(self) -> None:
        """End what is under way."""
        self._graphs.close()
        for thread in self._threads:
            thread.join()

    def _quicken(self, engine: weakref.ref[InferenceEngine]) -> None:
        # By a weak reference: a network that was swapped out meanwhile must not be kept.
        asked = engine()
        if asked is None:
            return
        recipe, version = asked.recipe, asked.version
        del asked
        try:
            graph = self._graphs.make(recipe)
            served = engine()
            if served is None:
                return
            served.quicken(graph)
        except ModelError as error:
            self._alarm = Alarm(error.code, error.line(), datetime.now(UTC))
            log.warning("event=runtime-torch version=%d code=%s", version, error.code)
        except Exception as error:  # the service must outlive any one graph
            self._alarm = Alarm(
                "graph-export", f"Unexpected trouble ({type(error).__name__}).", datetime.now(UTC)
            )
            log.warning("event=runtime-torch version=%d type=%s", version, type(error).__name__)
        else:
            self._alarm = None
            log.info("event=runtime-onnx version=%d", version)
