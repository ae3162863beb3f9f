"""Ctrl-C and SIGTERM: everything is stopped in order, and one closing line says so."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from deploy.console import EXIT_INTERRUPTED, progress_console

CLOSING_LINE = "Interrupted; everything is stopped."
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Let either signal end the block as Ctrl-C does; say so when all of it has been left.

    The first signal counts. Those after it are not heard while the block is left, for they would
    cut off the stopping that the closing line promises; what is yielded hears them again, for a
    block that took a signal as an order and goes on.

    Raises
    ------
    typer.Exit
        With 130, after a signal that the block did not take itself.
    """

    def hear() -> None:
        for number in SIGNALS:
            signal.signal(number, interrupt)

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for number in SIGNALS:
            signal.signal(number, _unheard)
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in SIGNALS}
    hear()
    try:
        yield hear
    except KeyboardInterrupt:
        progress_console.print(CLOSING_LINE)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _unheard(_number: int, _frame: FrameType | None) -> None:
    """Do nothing; unlike SIG_IGN, a process that is started now does not inherit it."""
