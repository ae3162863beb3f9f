"""What scoring the holdout leaves on disk, and how a withdrawal removes it."""

from __future__ import annotations

from pathlib import Path

PROFILES = "profiles"
"""In the site's ``data``: one profile a model."""

SCORES = "holdout-scores"
"""In the site's cache: what models say of holdout cases."""


def forget_holdout_traces(data: Path, cache: Path) -> None:
    """Remove both; the running service makes them anew of the cases that are left.

    Parameters
    ----------
    data, cache : Path
        The site's folders of these names.
    """
    for path in (*(data / PROFILES).glob("*.json"), *(cache / SCORES).glob("*.npz")):
        path.unlink(missing_ok=True)
