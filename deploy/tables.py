"""Tables for people of which nothing is cut off, however narrow the terminal."""

from __future__ import annotations

import rich.table
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement


class Table(rich.table.Table):
    """A table whose ids and codes can be read and copied whole.

    Each column gets room for its longest word, and what is left goes to the narrower ones first:
    texts are wrapped between words. Where the words do not fit, they go on in the next line.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it."""
        self._give_room(console, options)
        return super().__rich_console__(console, options)

    def _give_room(self, console: Console, options: ConsoleOptions) -> None:
        wanted = [self._cells(column, console) for column in self.columns]
        endless = options.update(width=sum(w.maximum for w in wanted) + 100 * len(wanted) + 100)
        frame = Measurement.get(console, endless, self).maximum - sum(w.maximum for w in wanted)
        spare = options.max_width - frame - sum(w.minimum for w in wanted)
        for column in self.columns:
            column.overflow = "fold"
        if spare < 0:
            for column in self.columns:
                column.no_wrap = False  # or it would be cropped
            return
        for column, want in sorted(
            zip(self.columns, wanted, strict=True), key=lambda pair: pair[1].span
        ):
            more = min(want.span, spare)
            column.width, spare = want.minimum + more, spare - more

    @staticmethod
    def _cells(column: rich.table.Column, console: Console) -> Measurement:
        """Measure the longest word and the longest line of a column's cells."""
        options = console.options.update(width=10_000)
        found = [Measurement.get(console, options, cell) for cell in (column.header, *column.cells)]
        widest = max(measured.maximum for measured in found)
        longest = max(measured.minimum for measured in found)
        return Measurement(widest if column.no_wrap else longest, widest)
