"""Buffered rounds on real processes: three hospitals, one of them slow, and nobody waits for it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from client.privacy.ledger import PrivacyLedger
from deploy.audit_report import audit
from deploy.local import LocalFederation
from server.registry.records import Contribution
from server.registry.registry import Registry
from server.rounds.driver import campaign_folder
from tests.soak.chaos import EPSILON, POLICY, federation, toy_recipe

pytestmark = pytest.mark.journey

SITES = ("north", "slow", "south")
STEPS = 6
STOPPED, RUNNING = 3.0, 0.4
"""Seconds for which the slow site's work rests, and goes on, in turns."""


@contextmanager
def slowed(made: LocalFederation, site: str) -> Iterator[None]:
    """Let a site's runner, and what it forks, rest most of the time."""
    over = threading.Event()
    runner = psutil.Process(made.pid(f"{site}-runner"))

    def family() -> list[psutil.Process]:
        with suppress(psutil.Error):
            return [runner, *runner.children(recursive=True)]
        return []

    def rest() -> None:
        while not over.wait(RUNNING):
            stopped = family()
            for process in stopped:
                with suppress(psutil.Error):
                    process.suspend()
            over.wait(STOPPED)
            for process in stopped:
                with suppress(psutil.Error):
                    process.resume()

    thread = threading.Thread(target=rest)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_the_quick_ones_go_on_and_what_the_slow_one_learnt_counts(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    recipe = toy_recipe().with_changes(mode="buffered", buffer_size=2, site_rounds=2 * STEPS)
    with federation(tmp_path / "here", SITES) as made:
        made.start()
        made.wait_ready()
        with slowed(made, "slow"):
            campaign = made.start_campaign(
                recipe, rounds=STEPS, epsilon=EPSILON, quorum=3, round_deadline_seconds=120.0
            )
            ended = made.wait_campaign(campaign, timeout=240.0)
        assert ended.state == "finished", ended.failure
        told = check_registry(made, campaign, record_property)
        check_sites(made, campaign, told)


def check_registry(
    made: LocalFederation, campaign: str, record_property: Callable[[str, object], None]
) -> tuple[Contribution, ...]:
    registry = Registry.open(made.coordinator)
    try:
        rounds = [r for r in registry.rounds(campaign) if r.purpose == "train"]
        told = registry.contributions(campaign)
        assert len(registry.candidates(campaign=campaign)) == 1
    finally:
        registry.close()
    assert [(r.number, r.state) for r in rounds] == [(n, "finished") for n in range(1, STEPS + 1)]
    accepted = [c for c in told if c.outcome == "accepted" and c.round <= STEPS]
    counts = Counter(c.site for c in accepted)
    record_property("updates", dict(counts))
    assert len(accepted) >= 2 * STEPS
    assert set(counts) == set(SITES)  # a quorum of three different sites in ten steps
    assert counts["slow"] < min(counts["north"], counts["south"])
    # The model moved on while the slow one trained: its update began at an earlier one.
    base = {r.number: r.base_digest for r in rounds}
    stale = [c for c in accepted if c.receipt and c.receipt.base_digest != base[c.round]]
    assert "slow" in {c.site for c in stale}
    assert not list(campaign_folder(made.coordinator, campaign).glob("answers-*"))
    return told


def check_sites(made: LocalFederation, campaign: str, told: tuple[Contribution, ...]) -> None:
    for name in made.site_names:
        with PrivacyLedger.open(made.site(name)) as ledger:
            ledger.verify_chain()
            reserved = Counter(
                line.round
                for line in ledger.entries()
                if line.campaign == campaign and line.kind == "reserve"
            )
            spent = ledger.spent(POLICY.delta).campaigns[campaign]
        turns = [c.receipt.round for c in told if c.site == name and c.receipt and c.receipt.steps]
        assert set(turns) <= set(reserved)
        assert set(reserved.values()) == {1}  # no turn was trained twice
        assert list(reserved) == list(range(1, len(reserved) + 1))
        assert 0 < spent <= EPSILON
    report = audit([made.site(n).folder for n in made.site_names], made.coordinator.folder)
    assert report.whole, report
