"""Cutting a stream of rows into batches that fit into memory, each row checked on the way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

Row = TypeVar("Row")
Checked = TypeVar("Checked")


def checked_batches(
    pool: Executor,
    rows: Iterable[Row],
    check: Callable[[Row], Checked],
    *,
    ahead: int,
    most_rows: int,
    most_bytes: int,
    size: Callable[[Checked], int],
) -> Iterator[list[tuple[Row, Checked]]]:
    """Yield rows with what a check made of them, in their order, in batches.

    Parameters
    ----------
    pool : Executor
        In which rows are checked.
    rows : iterable
        Read no further than is needed.
    check : callable
    ahead : int
        How many rows are being checked or have been beyond the batch; what `check` returns of
        them is in memory, too.
    most_rows, most_bytes : int
        A batch ends with the row that reaches either.
    size : callable
        Bytes that a checked row holds.
    """
    batch: list[tuple[Row, Checked]] = []
    held = 0
    for row, checked in _in_order(pool, rows, check, ahead):
        batch.append((row, checked))
        held += size(checked)
        if len(batch) >= most_rows or held >= most_bytes:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _in_order(
    pool: Executor, rows: Iterable[Row], check: Callable[[Row], Checked], ahead: int
) -> Iterator[tuple[Row, Checked]]:
    waiting: deque[tuple[Row, Future[Checked]]] = deque()
    try:
        for row in rows:
            waiting.append((row, pool.submit(check, row)))
            if len(waiting) > ahead:
                first, checked = waiting.popleft()
                yield first, checked.result()
        while waiting:
            first, checked = waiting.popleft()
            yield first, checked.result()
    finally:
        for _, unfinished in waiting:
            unfinished.cancel()
