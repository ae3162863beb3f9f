"""What the demo is doing now: bars on a terminal, elsewhere one plain line a stage and a round."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import Progress, TaskID


@dataclass
class Stage:
    """One stage under way: ``done`` of ``total`` parts, which are called ``unit``."""

    title: str
    total: int
    unit: str
    bar: TaskID
    done: int = 0


class Stages:
    """Shows stages on a progress display, or writes them as lines where it shows nothing.

    Parameters
    ----------
    display : rich.progress.Progress
        Bars; disabled where the output is no terminal.
    lines : rich.console.Console, optional
        Where the lines go then. None is silence.
    """

    def __init__(self, display: Progress, lines: Console | None) -> None:
        self._display = display
        self._lines = lines if display.disable else None
        self._started = time.monotonic()

    def begin(self, title: str, *, total: int = 1, unit: str = "") -> Stage:
        """Begin a stage."""
        bar = self._display.add_task(title, total=total)
        self._say(f"{title} …")
        return Stage(title, total, unit, bar)

    def advance(self, stage: Stage, done: int, note: str = "") -> None:
        """Say how far a stage is; a plain line only where ``done`` has grown."""
        text = f"{stage.title}: {note}" if note else stage.title
        self._display.update(stage.bar, description=text, completed=done)
        if done > stage.done and stage.unit:
            after = f", {note}" if note else ""
            self._say(f"{stage.title}: {stage.unit} {done} of {stage.total} done{after}")
        stage.done = max(stage.done, done)

    def end(self, stage: Stage) -> None:
        """End a stage."""
        self._display.update(stage.bar, completed=stage.total)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Show a stage of one part while the block runs."""
        stage = self.begin(title)
        yield
        self.end(stage)

    def warn(self, text: str) -> None:
        """Say something that a person should know, with bars or without, and to scripts, too."""
        self._display.console.print(
            f"Warning: {text}", markup=False, highlight=False, soft_wrap=True
        )

    def _say(self, text: str) -> None:
        if self._lines is not None:
            seconds = time.monotonic() - self._started
            self._lines.print(
                f"{seconds:4.0f} s  {text}", markup=False, highlight=False, soft_wrap=True
            )
