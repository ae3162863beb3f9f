"""`wardround site release`: decisions at the console, in the file and in the audit log."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.audit import open_site_audit
from client.releases.cache import ReleaseCache
from client.releases.decision_file import DecisionFile
from client.releases.desk import ReleaseDesk
from client.releases.files import MANIFEST, MODEL
from client.releases.policy import ReleasePolicy
from client.settings import SiteSettings
from common.audit_entries import ReleaseDecided
from common.errors import CaseRefused, NotFound, ReleaseError
from deploy.commands import site_release
from tests.client.serving import release, site_settings


@pytest.fixture
def site(tmp_path: Path) -> SiteSettings:
    """A site that went from release 1 to 2, and holds 3."""
    settings = site_settings(tmp_path)
    desk = ReleaseDesk(DecisionFile(settings.releases), policy=ReleasePolicy)
    beside = None
    for version in (1, 2, 3):
        made = release(tmp_path, version)
        folder = settings.releases / f"v{version}"
        folder.mkdir(parents=True)
        made.path.rename(folder / MODEL)
        (folder / MANIFEST).write_bytes(made.manifest.to_json())
        decision = desk.judge(made.manifest, beside=beside, compare=lambda: None)
        if version == 3:
            desk.keep(decision.model_copy(update={"verdict": "held", "reason": "policy"}))
        else:
            desk.take(made.manifest, decision, instead_of=desk.state.serving)
        beside = made.manifest
    return settings


def call(site: SiteSettings, command: Callable[..., object], *arguments: str) -> dict[str, object]:
    name = {"list_releases": "list"}.get(command.__name__, command.__name__)
    flags = [name, *arguments, "--site", str(site.folder), "--json"]
    result = CliRunner().invoke(site_release.commands, flags, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    document: dict[str, object] = json.loads(result.stdout)
    return document


def audited(site: SiteSettings) -> list[tuple[int, str, str]]:
    with open_site_audit(site) as audit:
        entries = [line.entry() for line in audit.lines(kinds=["release-decided"])]
    return [(e.version, e.verdict, e.by) for e in entries if isinstance(e, ReleaseDecided)]


def test_list_shows_what_waits(site: SiteSettings) -> None:
    document = call(site, site_release.list_releases)
    assert (document["serving"], document["previous"], document["waiting"]) == (2, 1, 3)
    result = CliRunner().invoke(site_release.commands, ["list", "--site", str(site.folder)])
    assert "Release 3 waits" in result.stdout


def test_accept_leaves_the_swap_to_the_service(site: SiteSettings) -> None:
    document = call(site, site_release.accept, "3")
    assert (document["serving"], document["waiting"]) == (2, None)
    ((version, verdict, by),) = audited(site)
    assert (version, verdict) == (3, "accepted")
    assert by.startswith("console-")
    with pytest.raises(NotFound):
        call(site, site_release.accept, "9")
    with pytest.raises(CaseRefused):
        call(site, site_release.refuse, "2")


def test_rollback_moves_the_pointer(site: SiteSettings) -> None:
    document = call(site, site_release.rollback)
    assert (document["serving"], document["previous"], document["pinned"]) == (1, None, True)
    kept = ReleaseCache(site).answering()
    assert kept is not None
    assert kept.version == 1
    assert [line[:2] for line in audited(site)] == [(2, "rolled-back")]


def test_a_rollback_to_a_damaged_release_changes_nothing(site: SiteSettings) -> None:
    (site.releases / "v1" / MODEL).write_bytes(b"damaged")
    with pytest.raises(ReleaseError, match="damaged"):
        call(site, site_release.rollback)
    assert call(site, site_release.list_releases)["serving"] == 2
    assert audited(site) == []


def test_refuse_is_for_good(site: SiteSettings) -> None:
    document = call(site, site_release.refuse, "3")
    assert document["waiting"] is None
    assert [line[:2] for line in audited(site)] == [(3, "refused")]
