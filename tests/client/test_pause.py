"""The pause switch: it stops plans at once, survives what happens to it, and is written down."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.audit import open_site_audit
from client.pause import current_pause, pause, resume, switch_of
from client.policy import SitePolicy
from client.settings import SiteSettings
from common.audit_entries import Entry, TrainingPaused, TrainingResumed
from common.errors import StoreError, WardroundError
from deploy.commands import site_pause
from tests.client.rounds import TOY, make_plan, make_site
from tests.deploy.typer_app import single_command


@pytest.fixture
def site(tmp_path: Path) -> SiteSettings:
    return make_site(tmp_path / "site", patients=0, holdout=0, declared_patients=None)


def refused(site: SiteSettings) -> bool:
    """Tell whether the switch refuses; this site declares no patients, and says so next."""
    with pytest.raises(WardroundError) as caught:
        SitePolicy.read(site.policy).check(make_plan(), own=TOY, now=time.time())
    return caught.value.code == "site-paused"


def entries(site: SiteSettings) -> list[Entry]:
    with open_site_audit(site) as log:
        return [line.entry() for line in log.lines()]


def test_the_switch_refuses_every_plan_until_it_is_set_back(site: SiteSettings) -> None:
    before = site.policy.read_bytes()
    assert not refused(site)
    made = pause(site, by="anna", reason=" a scanner was mislabelled ")
    assert refused(site)
    assert (made.by, made.reason) == ("anna", "a scanner was mislabelled")
    assert current_pause(site) == made == pause(site, by="someone-else")
    assert site.policy.read_bytes() == before
    assert switch_of(site.policy).stat().st_mode & 0o777 == 0o600
    assert resume(site, by="ben")
    assert not refused(site)
    assert not resume(site, by="ben")
    assert entries(site) == [TrainingPaused(by="anna"), TrainingResumed(by="ben")]


@pytest.mark.parametrize("content", [b"", b"{", b'{"since": 3}', b"\xff"])
def test_a_damaged_switch_still_pauses(site: SiteSettings, content: bytes) -> None:
    switch_of(site.policy).write_bytes(content)
    assert refused(site)
    assert current_pause(site) is not None


def test_a_dangling_link_or_a_folder_still_pauses(site: SiteSettings) -> None:
    switch = switch_of(site.policy)
    switch.symlink_to(site.folder / "nowhere")
    assert refused(site)
    switch.unlink()
    switch.mkdir()
    assert refused(site)
    with pytest.raises(StoreError, match="stays paused"):
        resume(site, by="anna")
    assert refused(site)


def test_a_log_that_cannot_be_written_stops_the_resumption_and_not_the_pause(
    site: SiteSettings,
) -> None:
    pause(site, by="anna")
    anchor = site.data / "audit-head.json"
    anchor.write_text("not json")
    with pytest.raises(StoreError):
        resume(site, by="anna")
    assert refused(site)
    switch_of(site.policy).unlink()
    with pytest.raises(StoreError):
        pause(site, by="anna")
    assert refused(site)


@pytest.mark.parametrize("policy", [None, "paused = "])
def test_the_switch_is_not_taken_for_the_policys_pause(
    site: SiteSettings, policy: str | None
) -> None:
    if policy is not None:
        site.policy.write_text(policy)  # no policy at all: pausing must work all the same
    call = ["--site", str(site.folder), "--json"]
    for changed in (True, False):
        output = CliRunner().invoke(single_command(site_pause.pause), call).stdout
        document = json.loads(output)
        assert (document["paused"], document["changed"]) == (True, changed)
        assert document["policy_paused"] is False


def test_the_policys_own_pause_outlives_the_switch(site: SiteSettings) -> None:
    text = site.policy.read_text()
    site.policy.write_text(text.replace("paused = false", "paused = true"))
    call = ["--site", str(site.folder)]
    runner, shown = CliRunner(), single_command(site_pause.resume)
    paused = runner.invoke(single_command(site_pause.pause), [*call, "--json"])
    assert json.loads(paused.stdout)["policy_paused"] is True
    assert "policy.toml" in runner.invoke(single_command(site_pause.pause), call).stdout
    output = runner.invoke(shown, call, catch_exceptions=False).stdout
    assert "policy.toml says paused = true" in output
    assert refused(site)
    assert all(e.by.startswith("console-") for e in entries(site))  # type: ignore[union-attr]
