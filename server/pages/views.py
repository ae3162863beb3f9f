"""What the pages show, from the registry, the presence of sites and their certificates.

Frozen values, ready to be drawn: no template asks a database anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from common.audit_lines import AuditLine
from common.errors import NotFound
from server.api.services import CoordinatorServices
from server.outcome_reasons import OUTCOME_REASONS
from server.pages import charts
from server.pages.certificates import CertificateEnd, certificate_ends
from server.presence import Seen
from server.registry.records import (
    Campaign,
    Candidate,
    Contribution,
    Release,
    Round,
    SiteForecast,
)
from server.registry.site_history import LifeSpent

ALIVE_SECONDS = 20.0
AUDIT_LINES = 200
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class SiteView:
    """One site as the coordinator knows it."""

    name: str
    seen: Seen | None
    ago: float | None
    alive: bool
    serves: Release | None
    offered: int | None
    certificate: CertificateEnd | None
    spent: LifeSpent | None
    last: Contribution | None


@dataclass(frozen=True)
class CampaignView:
    """One campaign with its charts."""

    campaign: Campaign
    rounds: tuple[Round, ...]
    contributions: tuple[Contribution, ...]
    done: int
    timeline: charts.Timeline | None
    metrics: charts.LineChart | None
    epsilon: charts.LineChart | None
    spent: Mapping[str, Contribution]
    candidates: tuple[Candidate, ...]
    reasons: Mapping[str, str]
    """What the codes among the contributions mean."""
    forecasts: tuple[SiteForecast, ...]
    """What the sites said before it."""
    reasons_before: Mapping[str, str]


@dataclass(frozen=True)
class ReleaseView:
    """One release, what became of it, and where it is served now."""

    release: Release
    candidate: Candidate
    standing: str
    serving: tuple[str, ...]
    open: bool
    rollback: Release | None


def site_views(services: CoordinatorServices) -> tuple[SiteView, ...]:
    """Return every registered site, by name."""
    registry, now = services.registry, services.clock()
    seen = services.presence.all()
    ends = certificate_ends(services.settings.pki, now)
    releases = {release.version: release for release in registry.releases()}
    last, spent = registry.history.last_asked(), registry.history.spent()
    views = []
    for site in registry.sites():
        found = seen.get(site.name)
        ago = None if found is None else max(0.0, (now - found.at).total_seconds())
        serves = None if found is None or found.release is None else releases.get(found.release)
        views.append(
            SiteView(
                name=site.name,
                seen=found,
                ago=ago,
                alive=ago is not None and ago <= ALIVE_SECONDS,
                serves=serves,
                offered=_offered(services, site.name, serves),
                certificate=ends.get(site.name),
                spent=spent.get(site.name),
                last=last.get(site.name),
            )
        )
    return tuple(views)


def campaign_view(services: CoordinatorServices, identifier: str) -> CampaignView:
    """Return one campaign; raises `NotFound` as the registry does."""
    registry = services.registry
    campaign = registry.campaign(identifier)
    rounds = registry.rounds(identifier)
    contributions = registry.contributions(identifier)
    forecasts = registry.forecasts(identifier)
    spent = {c.site: c for c in contributions if c.receipt is not None}
    sites = campaign.settings.sites or tuple(site.name for site in registry.sites())
    return CampaignView(
        campaign=campaign,
        rounds=rounds,
        contributions=contributions,
        done=sum(r.state == "finished" and r.purpose == "train" for r in rounds),
        timeline=charts.timeline(sites, rounds, contributions),
        metrics=charts.line_chart(_metrics(rounds)),
        epsilon=charts.line_chart(_epsilon(contributions), low=0.0),
        spent=spent,
        candidates=registry.candidates(campaign=identifier),
        reasons=_reasons([*contributions, *rounds]),
        forecasts=forecasts,
        reasons_before=_reasons(forecasts),
    )


def release_views(services: CoordinatorServices) -> tuple[ReleaseView, ...]:
    """Return every release, the newest first."""
    releases = services.registry.releases()
    candidates = {candidate.id: candidate for candidate in services.registry.candidates()}
    seen = services.presence.all()
    return tuple(_release_view(r, releases, candidates[r.candidate], seen) for r in releases)


def release_view(services: CoordinatorServices, version: int) -> ReleaseView:
    """Return one release.

    Raises
    ------
    NotFound
        If there is none of that version.
    """
    for view in release_views(services):
        if view.release.version == version:
            return view
    raise NotFound(f"There is no release {version}.", action="The page of releases names them.")


def audit_tail(services: CoordinatorServices) -> tuple[AuditLine, ...]:
    """Return the newest lines of the coordinator's audit log, the newest first."""
    audit = services.registry.audit
    head = audit.anchored()
    after = 0 if head is None else max(0, head.sequence - AUDIT_LINES)
    return tuple(reversed(list(audit.lines(after=after))))


def _release_view(
    release: Release, all_of: Sequence[Release], candidate: Candidate, seen: Mapping[str, Seen]
) -> ReleaseView:
    same = [other for other in all_of if other.task == release.task]
    newer = [other for other in same if other.version > release.version]
    superseded = any(other.state == "everywhere" for other in newer)
    behind = superseded and release.state != "withdrawn"
    serving = sorted(site for site, found in seen.items() if found.release == release.version)
    return ReleaseView(
        release=release,
        candidate=candidate,
        standing="superseded" if behind else release.state,
        serving=tuple(serving),
        open=not superseded and release.state != "withdrawn",
        rollback=None if newer else _way_back(release, same),
    )


def _way_back(newest: Release, same: Sequence[Release]) -> Release | None:
    """Return the release to which the newest one of a task would be rolled back."""
    for other in same:
        older = other.version < newest.version and other.state not in ("withdrawn", "held")
        if older and (other.model_digest != newest.model_digest or newest.state != "everywhere"):
            return other
    return None


def _offered(services: CoordinatorServices, site: str, serves: Release | None) -> int | None:
    tasks = services.registry.rollouts.tasks()
    task = serves.task if serves is not None else tasks[0] if len(tasks) == 1 else None
    if task is None:
        return None
    current = 0 if serves is None else serves.version
    offered = services.registry.rollouts.wanted(task).offered(site, current=current)
    return offered if offered > current else None


def _reasons(told: Sequence[Contribution | Round | SiteForecast]) -> dict[str, str]:
    codes = {one.code or "" for one in told}
    return {code: OUTCOME_REASONS[code] for code in sorted(codes & OUTCOME_REASONS.keys())}


def _metrics(rounds: Sequence[Round]) -> charts.Series:
    names = {
        "macro AUROC": "macro_auroc",
        "balanced accuracy": "balanced_accuracy",
        "accuracy": "accuracy",
        "always the majority": "majority_baseline",
    }
    return {label: list(_figures(rounds, name)) for label, name in names.items()}


def _figures(rounds: Sequence[Round], name: str) -> Iterator[tuple[int, float]]:
    for found in rounds:
        value = None if found.metrics is None else getattr(found.metrics, name)
        if value is not None:
            yield found.number, value


def _epsilon(contributions: Sequence[Contribution]) -> charts.Series:
    series: dict[str, list[tuple[int, float]]] = {}
    for c in contributions:
        if c.receipt is not None and c.receipt.epsilon_campaign is not None:
            series.setdefault(c.site, []).append((c.round, c.receipt.epsilon_campaign))
    return dict(sorted(series.items()))


def details(line: AuditLine) -> Iterator[tuple[str, str]]:
    """Yield what an audit line says, shortened to what a person reads."""
    for name, value in line.entry().model_dump(exclude={"kind"}).items():
        if value is None or value == ():
            continue
        text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        yield name.replace("_", " "), f"{text[:12]}…" if _DIGEST.fullmatch(text) else text


def clock(moment: datetime | None) -> str:
    """Return a time as the pages write it."""
    return "–" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def figure(value: float | None, digits: int = 3) -> str:
    """Return a figure as the pages write it; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def ago(seconds: float | None) -> str:
    """Return how long ago something was."""
    if seconds is None:
        return "not seen since this service started"
    if seconds < 90:
        return f"{seconds:.0f} s ago"
    return f"{seconds / 60:.0f} min ago" if seconds < 5400 else f"{seconds / 3600:.0f} h ago"
