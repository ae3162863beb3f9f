"""Figures as a report writes them."""

from __future__ import annotations

from datetime import datetime

NOTHING = "–"


def figure(value: float | None, digits: int = 3) -> str:
    """Return a figure of fixed digits, a dash where there is none."""
    return NOTHING if value is None else f"{value:.{digits}f}"


def short(value: float | None) -> str:
    """Return a figure in as few digits as it needs."""
    return NOTHING if value is None else f"{value:g}"


def count_or_figure(value: float | None) -> str:
    """Return a whole number as one, anything else as `figure` does."""
    whole = value is not None and float(value).is_integer()
    return str(int(value)) if value is not None and whole else figure(value)


def percent(value: float) -> str:
    """Return a share as per cent."""
    return f"{100 * value:g} %"


def moment(value: datetime | None) -> str:
    """Return a date and time to the minute, UTC."""
    return NOTHING if value is None else f"{value:%Y-%m-%d %H:%M} UTC"


def listed(names: tuple[str, ...]) -> str:
    """Return names as a list in a sentence."""
    if not names:
        return "none"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def interval(low: float | None, high: float | None, digits: int = 3) -> str:
    """Return ``low to high``, a dash where there is no interval."""
    if low is None or high is None:
        return NOTHING
    return f"{low:.{digits}f} to {high:.{digits}f}"
