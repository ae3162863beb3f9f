"""Who is waited for: not a site that was shut out for good."""

from __future__ import annotations

import json
from pathlib import Path

from server.revocations import revoked_sites
from server.rounds.site_directory import SiteDirectory
from tests.fakes import FakeSite
from tests.server.campaigns import Coordinator


def revoke(made: Coordinator, *names: str) -> None:
    made.settings.pki.mkdir(exist_ok=True)
    document = dict.fromkeys(names, "2026-01-02T03:04:05+00:00")
    (made.settings.pki / "revoked.json").write_text(json.dumps(document))


def coordinator(folder: Path) -> Coordinator:
    return Coordinator(folder, [FakeSite(name) for name in ("north", "south", "west")])


def test_no_campaign_waits_for_a_site_that_was_revoked(tmp_path: Path) -> None:
    made = coordinator(tmp_path)
    revoke(made, "west")
    made.grid.offline = {102}
    campaign = made.create(rounds=2, site_wait_seconds=5000.0)
    made.run(campaign)
    assert made.clock.slept < 100
    assert {c.site for c in made.registry.contributions(campaign.id)} == {"north", "south"}
    assert [site.name for site in made.registry.sites()] == ["north", "south", "west"], (
        "it stays on record"
    )


def test_a_revoked_site_that_is_connected_still_is_not_asked(tmp_path: Path) -> None:
    made = coordinator(tmp_path)
    revoke(made, "west")
    made.run(made.create(rounds=1))
    assert made.sites["west"].plans == []


def test_where_all_are_revoked_no_stranger_is_asked_for_its_name(tmp_path: Path) -> None:
    made = coordinator(tmp_path)
    revoke(made, "north", "south", "west")
    directory = SiteDirectory(
        made.grid,
        made.registry,
        made.clock,
        only=None,
        revoked=lambda: revoked_sites(made.settings.pki),
    )
    assert directory.connected() == {}
    assert directory.reachable() == frozenset()
    assert made.grid.pushed == []


def test_a_book_that_cannot_be_read_shuts_nobody_out(tmp_path: Path) -> None:
    (tmp_path / "revoked.json").write_text("{")
    assert revoked_sites(tmp_path) == frozenset()
