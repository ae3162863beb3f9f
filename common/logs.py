"""Logging of the long-running processes: lines for people, or one JSON object a line.

Either way an event and its identifiers, never a pixel, a name or a patient's id: what a line may
hold is decided where it is written, not here.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal, TextIO, TypeAlias

LogFormat: TypeAlias = Literal["text", "json"]
TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON.

    ``time`` (RFC 3339, UTC), ``level``, ``logger`` and ``message`` always; ``exception`` with the
    whole traceback where there is one. The message is not taken apart: its ``key=value`` pairs
    stay text.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without a line break in it."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class _Handler(logging.StreamHandler[TextIO]):
    """A handler that was set up here."""


def configure_logging(
    log_format: LogFormat, *, level: int = logging.INFO, levels: Mapping[str, int] | None = None
) -> None:
    """Log to standard error in a format; a second call changes the format of the first.

    A program that has handlers of its own keeps them.

    Parameters
    ----------
    log_format : str
        ``text`` or ``json``.
    level : int
        Of all loggers that ``levels`` does not name.
    levels : mapping of str to int, optional
        Level by logger.
    """
    formatter = JsonFormatter() if log_format == "json" else logging.Formatter(TEXT)
    root = logging.getLogger()
    ours = [handler for handler in root.handlers if isinstance(handler, _Handler)]
    if not root.handlers:
        ours = [_Handler(sys.stderr)]
        root.addHandler(ours[0])
    for handler in ours:
        handler.setFormatter(formatter)
        root.setLevel(level)
    for name, own in (levels or {}).items():
        logging.getLogger(name).setLevel(own)
