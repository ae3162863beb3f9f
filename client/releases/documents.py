"""The documents of ``GET /releases`` and ``wardround site release``, for the site's own eyes."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import AwareDatetime, BaseModel, ConfigDict

from client.releases.decisions import ReleaseDecision, SiteReleases
from client.releases.policy import ReleasePolicy
from client.releases.shadow_figures import ShadowFigures

State: TypeAlias = Literal["serving", "previous", "held", "refused", "rolled-back", "replaced"]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ReleaseRow(_Document):
    """One release that this site decided about.

    ``state``: ``serving`` answers (or is to, as soon as it is loaded), ``previous`` is where a
    rollback leads, ``held`` waits for a person, ``refused`` and ``rolled-back`` are not used,
    ``replaced`` answered once. ``by`` is an account or ``policy``; ``figures`` are of the shadow
    run on this site's holdout, None where there was none.
    """

    version: int
    model_digest: str
    state: State
    by: str
    reason: str
    at: AwareDatetime
    figures: ShadowFigures | None = None


class SiteReleasesDocument(_Document):
    """What this site decided about releases.

    ``pinned`` is True after a rollback here, until a newer release is accepted. ``waiting`` is the
    newest release that waits for a person. ``rows`` are the newest first.
    """

    site: str
    task: str
    serving: int | None
    previous: int | None
    waiting: int | None
    pinned: bool
    policy: ReleasePolicy
    rows: tuple[ReleaseRow, ...]


class ServiceReleasesDocument(SiteReleasesDocument):
    """The same, as the running service has it.

    ``answering`` is the version that answers now, ``judging`` one that is being loaded and scored
    beside it. ``vouched_at`` is when the coordinator last vouched for the newest release;
    ``stale`` tells that this is longer ago than the policy likes, ``refuses`` that therefore no
    answers are given.
    """

    answering: int | None
    judging: int | None
    vouched_at: AwareDatetime | None
    stale: bool
    refuses: bool


def releases_document(
    state: SiteReleases, policy: ReleasePolicy, *, site: str, task: str
) -> SiteReleasesDocument:
    """Write down what a site decided."""
    newest = {decision.version: decision for decision in state.decisions}
    serving = None if state.serving is None else state.serving.version
    held = [v for v, d in newest.items() if d.verdict == "held" and v > (serving or 0)]
    return SiteReleasesDocument(
        site=site,
        task=task,
        serving=serving,
        previous=None if state.fallback is None else state.fallback.version,
        waiting=max(held, default=None),
        pinned=state.pinned,
        policy=policy,
        rows=tuple(_row(newest[version], state) for version in sorted(newest, reverse=True)),
    )


def _row(decision: ReleaseDecision, state: SiteReleases) -> ReleaseRow:
    fields = decision.model_dump(exclude={"verdict", "figures"})
    return ReleaseRow(**fields, figures=decision.figures, state=_state(decision, state))


def _state(decision: ReleaseDecision, state: SiteReleases) -> State:
    version = decision.version
    serving = 0 if state.serving is None else state.serving.version
    if version == serving or (decision.verdict == "accepted" and version > serving):
        return "serving"
    if state.fallback is not None and version == state.fallback.version:
        return "previous"
    if decision.verdict == "held":
        return "held" if version > serving else "replaced"
    if decision.verdict == "accepted":
        return "replaced"
    return decision.verdict
