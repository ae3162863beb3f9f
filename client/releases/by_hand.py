"""Decisions about releases from the command line, beside the service or without it.

The decision is kept first, then written into the audit log: a rollback must not wait for a database
that is away. The running service follows within ``release_watch_seconds``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from client.audit import open_site_audit
from client.releases.cache import ReleaseCache
from client.releases.decision_file import DecisionFile
from client.releases.decisions import ReleaseDecision
from client.releases.desk import ReleaseDesk, unknown_release
from client.releases.documents import SiteReleasesDocument, releases_document
from client.releases.policy_file import ReleasePolicyFile
from client.settings import SiteSettings
from common.audit_entries import ReleaseDecided
from common.errors import ReleaseError
from common.release import ReleaseManifest

Act: TypeAlias = Callable[[ReleaseDesk], object]


def list_releases(settings: SiteSettings) -> SiteReleasesDocument:
    """Return what the site decided about releases."""
    state = DecisionFile(settings.releases).value()
    policy = ReleasePolicyFile(settings.policy).read()
    return releases_document(state, policy, site=settings.name, task=settings.task)


def accept_release(settings: SiteSettings, version: int, *, by: str) -> SiteReleasesDocument:
    """Have a release answer as soon as the service has loaded and tested it.

    Raises
    ------
    NotFound, CaseRefused, StoreError
        With code ``release-not-found``, or as `ReleaseDesk.accept`.
    """
    manifest = _kept(settings, version)
    return _decided(settings, lambda desk: desk.accept(manifest, by=by))


def refuse_release(settings: SiteSettings, version: int, *, by: str) -> SiteReleasesDocument:
    """Have a release never answer here; raises as `accept_release`."""
    manifest = _kept(settings, version)
    return _decided(settings, lambda desk: desk.refuse(manifest, by=by))


def roll_back(settings: SiteSettings, *, by: str) -> SiteReleasesDocument:
    """Have the release before answer again.

    Raises
    ------
    CaseRefused
        With code ``no-previous-release``.
    ReleaseError
        With code ``release-corrupted``, if its file is damaged; nothing was changed.
    StoreError
        If the disk or the database failed.
    """
    fallback = DecisionFile(settings.releases).value().fallback
    if fallback is not None and ReleaseCache(settings).find(fallback.version) is None:
        raise ReleaseError(
            f"Release {fallback.version} on this site's disk is missing or damaged.",
            meaning="Nothing was changed.",
            action="Ask the coordinator for a rollback.",
            code="release-corrupted",
        )
    return _decided(settings, lambda desk: desk.roll_back(by=by))


def _kept(settings: SiteSettings, version: int) -> ReleaseManifest:
    release = ReleaseCache(settings).find(version)
    if release is None:
        raise unknown_release(version)
    return release.manifest


def _decided(settings: SiteSettings, act: Act) -> SiteReleasesDocument:
    policy, made = ReleasePolicyFile(settings.policy), list[ReleaseDecision]()
    desk = ReleaseDesk(DecisionFile(settings.releases), policy=policy.read, on_decision=made.append)
    act(desk)
    with open_site_audit(settings) as audit:
        fields = [decision.model_dump(exclude={"at", "figures"}) for decision in made]
        audit.append(*(ReleaseDecided(**one) for one in fields))
    return releases_document(desk.state, policy.known(), site=settings.name, task=settings.task)
