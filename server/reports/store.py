"""Reports on disk: made for every release by itself, kept in ``data/reports/<version>/``.

A report is made from the registry after a release stands, by a task of its own. Should that
fail, it is logged, shown in the metrics (``wardround_release_reports``) and tried again; no
release waits for it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, TypeVar

from common.errors import StoreError, WardroundError
from common.folders import write_public
from server.registry.registry import Registry
from server.reports.content import ReleaseReport
from server.settings import CoordinatorSettings

logger = logging.getLogger(__name__)

Format = Literal["html", "pdf", "both"]
Given = TypeVar("Given")
Made = TypeVar("Made")
SAID = 200
"""Characters of a library's error that are told."""
LOOK_SECONDS = 15.0
RETRY_SECONDS = 600.0
"""Until a report that failed is tried again: what broke it is seldom gone in a minute."""
UNDRAWN_RETRY_SECONDS = 86_400.0
"""The same after ``report-undrawn``: the same registry most likely fails the same way."""


class ReportUndrawn(WardroundError):
    """A report's sections, HTML or PDF cannot be drawn from what the registry holds."""

    default_code: ClassVar[str] = "report-undrawn"


@dataclass(frozen=True)
class ReportPaths:
    """Where a release's report is, or will be."""

    html: Path
    pdf: Path

    @property
    def made(self) -> bool:
        """Whether both files are there."""
        return self.html.is_file() and self.pdf.is_file()


def report_paths(settings: CoordinatorSettings, version: int) -> ReportPaths:
    """Return where the report of a release is kept, whether it is made already or not."""
    folder = settings.data / "reports" / str(version)
    return ReportPaths(folder / "report.html", folder / "report.pdf")


def write_report(report: ReleaseReport, folder: Path, *, kind: Format = "both") -> tuple[Path, ...]:
    """Render a report into a folder, which is made if need be.

    Returns
    -------
    tuple of Path
        ``report.html`` and ``report.pdf``, as asked for.

    Raises
    ------
    StoreError
        If the folder cannot be written.
    ReportUndrawn
        If the report cannot be drawn; what could be is written.
    """
    from server.reports.assembly import document
    from server.reports.html import render_html
    from server.reports.pdf import render_pdf

    content = _drawn("its sections", document, report)
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for suffix, render in (("html", render_html), ("pdf", render_pdf)):
            if kind in (suffix, "both"):
                path = folder / f"report.{suffix}"
                write_public(path, _drawn(f"the {suffix.upper()}", render, content))
                written.append(path)
    except OSError as error:
        raise StoreError(
            f"The report cannot be written to {folder} ({error.strerror or error}).",
            action="Check that the folder is yours and that the disk has room.",
            code="report-unwritten",
        ) from error
    return tuple(written)


def _drawn(what: str, draw: Callable[[Given], Made], given: Given) -> Made:
    """Draw; whatever a drawing library raises is told as one error with a code."""
    try:
        return draw(given)
    except (MemoryError, OSError, WardroundError):
        raise
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())[:SAID]
        raise ReportUndrawn(
            f"The report cannot be drawn: {what} failed ({said}).",
            meaning="Everything it would say is in the registry, and the release is not touched.",
            action="Report this with the line above: it is a fault of Wardround. `--format` html "
            "or pdf may give the other of the two.",
        ) from error


@dataclass
class ReportKeeper:
    """Makes the reports that are missing.

    Parameters
    ----------
    settings, registry
        The coordinator's.
    make : callable
        Makes the report of a version into its place; may raise.
    clock : callable, optional
        Seconds that never jump.
    """

    settings: CoordinatorSettings
    registry: Registry
    make: Callable[[int], None]
    clock: Callable[[], float] = time.monotonic
    _failed: dict[int, float] = field(default_factory=dict)

    def keep(self) -> tuple[int, ...]:
        """Make each missing report, the newest release's first; return the versions made."""
        made = []
        for release in self.registry.releases():
            waiting = self.clock() < self._failed.get(release.version, -1.0)
            if waiting or report_paths(self.settings, release.version).made:
                continue
            if self._make(release.version):
                made.append(release.version)
        return tuple(made)

    def _make(self, version: int) -> bool:
        try:
            self.make(version)
        except Exception as error:  # whatever it is: releases and their sites must not feel it
            code = error.code if isinstance(error, WardroundError) else "unexpected"
            logger.error("report-failed version=%d code=%s", version, code, exc_info=error)
            undrawn = code == ReportUndrawn.default_code
            wait = UNDRAWN_RETRY_SECONDS if undrawn else RETRY_SECONDS
            self._failed[version] = self.clock() + wait
            return False
        self._failed.pop(version, None)
        logger.info("report-made version=%d", version)
        return True
