"""Who is waited for: not a site that was shut out for good."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from flwr.app import RecordDict

from common.audit_entries import ReplyRefused
from common.plan import RoundPlan
from common.records import SiteReply
from common.wire import reply_to_records
from server.revocations import revoked_sites
from server.rounds.site_directory import SiteDirectory
from tests.fakes import FakeSite
from tests.server.campaigns import Coordinator
from tests.server.rounds.buffered import buffered


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


@pytest.mark.parametrize("rounds", ["plain", "buffered"])
def test_what_a_site_sends_after_it_was_revoked_is_not_used(tmp_path: Path, rounds: str) -> None:
    """The SuperLink could not be told, or holds the answer already."""
    made = coordinator(tmp_path)
    for name, delay in (("north", 2.0), ("south", 2.0), ("west", 1.0)):
        made.sites[name].delay = delay

    def late(reply: SiteReply, plan: RoundPlan) -> RecordDict:
        if plan.purpose == "train":
            revoke(made, "west")
        return reply_to_records(reply)

    made.sites["west"].behave = late
    campaign = made.create(rounds=1) if rounds == "plain" else buffered(made, rounds=2)
    candidate = made.run(campaign)
    assert {part.site for part in candidate.draft.lineage.sites} == {"north", "south"}
    refused = [line.entry() for line in made.registry.audit.lines(kinds=("reply-refused",))]
    assert {(e.site, e.code) for e in refused if isinstance(e, ReplyRefused)} == {
        ("west", "site-revoked")
    }


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
