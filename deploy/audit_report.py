"""Verifying the audit logs of sites and of a coordinator, each alone and against each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from common.audit import AuditLog
from common.audit_chain import Fault, verify
from common.audit_compare import Difference, compare
from common.audit_entries import Entry, Left, PredictionMade, ReleaseInstalled
from common.audit_lines import AuditLine
from common.errors import NotFound, StoreError
from deploy.audit_export import checked_lines, read_export
from deploy.audit_trace import Trace, TracedPrediction, trace, traced

if TYPE_CHECKING:
    from server.registry.registry import Registry


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True)


class LogReport(_Document):
    """One log: ``faults`` has a sentence for each line that is not as it was written."""

    end: str
    name: str
    lines: int
    faults: tuple[str, ...]


class DifferenceReport(_Document):
    """One thing that a site and the coordinator say differently; see `common.audit_compare`."""

    code: str
    site: str
    campaign: str
    round: int
    nonce: str
    text: str
    fault: bool


class AuditReport(_Document):
    """The document that ``--json`` prints. ``whole`` is False if anything in it is a fault."""

    whole: bool
    logs: tuple[LogReport, ...]
    differences: tuple[DifferenceReport, ...]
    trace: Trace | None


@dataclass
class _Read:
    """One log, read once: what the checks need of it."""

    end: str
    name: str
    wanted: str | None = None
    lines: int = 0
    entries: list[Entry] = field(default_factory=list)
    prediction: TracedPrediction | None = None
    faults: tuple[str, ...] = ()
    _installed: dict[tuple[int, str], str] = field(default_factory=dict)

    def visit(self, line: AuditLine) -> None:
        self.lines += 1
        if line.kind == "prediction" and self.wanted is None:
            return
        try:
            entry = line.entry()
        except StoreError:
            return  # `verify` names it
        if isinstance(entry, ReleaseInstalled):
            self._installed[entry.version, entry.model_digest] = line.written_at
        elif isinstance(entry, PredictionMade):
            if entry.request_id == self.wanted:
                installed = self._installed.get((entry.version, entry.model_digest))
                self.prediction = traced(self.name, entry, line.written_at, installed)
        else:
            self.entries.append(entry)

    def report(self) -> LogReport:
        return LogReport(end=self.end, name=self.name, lines=self.lines, faults=self.faults)


def audit(
    sites: Iterable[Path],
    coordinator: Path | None,
    exports: Iterable[Path] = (),
    *,
    prediction: str | None = None,
) -> AuditReport:
    """Verify logs, compare the two ends, and follow a prediction.

    Raises
    ------
    NotFound
        If no site's log has the prediction.
    ConfigurationError, StoreError, InputRefused
        If a folder, a database or an exported file cannot be read.
    """
    read = [_site(folder, prediction) for folder in sites]
    read += [_export(path) for path in exports]
    if coordinator is None:
        return _report(read, None, None, prediction)
    with _registry(coordinator) as registry:
        own = _log("coordinator", "coordinator", registry.audit, None)
        return _report(read, own, registry, prediction)


def _report(
    sites: list[_Read], coordinator: _Read | None, registry: Registry | None, wanted: str | None
) -> AuditReport:
    told = coordinator.entries if coordinator is not None else []
    differences: list[Difference] = []
    if coordinator is not None:
        for site in sites:
            differences += compare(site.name, site.entries, told)
    found = _trace(sites, registry, tuple(told)) if wanted is not None else None
    logs = [*sites, coordinator] if coordinator is not None else sites
    faulty = any(log.faults for log in logs) or any(d.fault for d in differences)
    return AuditReport(
        whole=not (faulty or (found is not None and found.faults)),
        logs=tuple(log.report() for log in logs),
        differences=tuple(DifferenceReport.model_validate(vars(d)) for d in differences),
        trace=found,
    )


def _trace(sites: list[_Read], registry: Registry | None, told: tuple[Entry, ...]) -> Trace:
    found = [site.prediction for site in sites if site.prediction is not None]
    if not found:
        raise NotFound(
            "No audit log that was given has this prediction.",
            meaning="It was made at another site, or the log says how many it could not write.",
            action="Name the site's folder with --site, and the request id of the answer.",
            code="prediction-unknown",
        )
    left = {
        site.name: {
            entry.update_digest
            for entry in site.entries
            if isinstance(entry, Left) and entry.update_digest is not None
        }
        for site in sites
    }
    return trace(found[0], registry, told, left)


def _site(folder: Path, wanted: str | None) -> _Read:
    from client.audit import open_site_audit
    from client.settings import SiteSettings

    settings = SiteSettings.read(folder)
    with open_site_audit(settings) as log:
        return _log("site", settings.name, log, wanted)


def _export(path: Path) -> _Read:
    export = read_export(path)
    left, faults = checked_lines(export)
    read = _Read("export", export.site, lines=len(export.lines), faults=tuple(faults))
    read.entries += left
    return read


def _log(end: str, name: str, log: AuditLog, wanted: str | None) -> _Read:
    read = _Read(end, name, wanted)
    faults: tuple[Fault, ...] = verify(log, read.visit)
    read.faults = tuple(fault.text for fault in faults)
    return read


@contextmanager
def _registry(folder: Path) -> Iterator[Registry]:
    from server.registry.registry import Registry
    from server.settings import CoordinatorSettings

    registry = Registry.open(CoordinatorSettings.find(folder))
    try:
        yield registry
    finally:
        registry.close()
