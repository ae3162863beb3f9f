"""The ``[inference]`` table of ``site.toml``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from client.inference.limits import BatchLimits


class InferenceSettings(BaseModel):
    """How this site's service computes.

    ``runtime``: ``auto`` is ONNX Runtime on the CPU, once it was found to answer as torch does, and
    torch on any other device; ``torch`` is torch. ``graphs`` is the folder of ONNX graphs, by
    default one in the site's cache. ``lanes`` is how many network calls run at once, ``batch`` how
    many images one may have; 0 is a lane a core and one more (as many as ``threads`` where the site
    bounds them) and small batches on the CPU, where more images a call are not faster, and two
    lanes and larger batches on a GPU. ``queue`` is how many images
    may wait, ``queue_seconds`` for how long; whoever comes on top is told to try again.
    ``kept_answers`` is how many answers are kept in memory for images that come again; 0 is none.
    ``ensemble`` is how many releases answer together, the newest and older ones that this site
    accepted: each costs a network call an image (`client.inference.company`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    runtime: Literal["auto", "torch"] = "auto"
    graphs: Path | None = None
    lanes: Annotated[int, Field(ge=0, le=256)] = 0
    batch: Annotated[int, Field(ge=0, le=256)] = 0
    queue: Annotated[int, Field(ge=1, le=10_000)] = 64
    queue_seconds: Annotated[float, Field(gt=0)] = 10.0
    kept_answers: Annotated[int, Field(ge=0, le=100_000)] = 1024
    ensemble: Annotated[int, Field(ge=1, le=8)] = 1

    def limits(self, *, on_cpu: bool, threads: int) -> BatchLimits:
        """Return the batcher's limits.

        Parameters
        ----------
        on_cpu : bool
            Whether the network runs on the CPU.
        threads : int
            The site's bound on threads, 0 for none.
        """
        # One more than the cores: lanes also wait, for Python's lock and for images.
        lanes = (threads or (os.cpu_count() or 1) + 1) if on_cpu else 2
        return BatchLimits(
            lanes=self.lanes or lanes,
            batch=self.batch or (2 if on_cpu else 16),
            queue=self.queue,
            queue_seconds=self.queue_seconds,
        )
