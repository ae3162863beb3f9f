"""A campaign on a real federation whose processes are killed with -9 at random moments.

Every site must take part in every round (the quorum is all of them), so that a lost answer, a
round that was trained twice or privacy that was spent twice shows in the figures.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import psutil

from client.policy import SitePolicy
from client.privacy.ledger import PrivacyLedger
from common.audit_entries import CampaignMoved
from common.recipe import Recipe
from deploy.audit_report import audit
from deploy.local import LocalFederation
from server.registry.registry import Registry
from server.rounds.driver import campaign_folder
from tests.client.rounds import TOY, fill

EPSILON = 4.0
POLICY = SitePolicy(
    allowed_recipes=("toy",),
    release_evaluation=True,
    minimum_cell=1,
    max_grad_norm=2.0,
    declared_patients=25,
    evaluations_per_day=1000,
)
NAMES = ("east", "north", "south", "west")
SERVERAPP = "serverapp"
SECONDS_LIMIT = 1800.0


@dataclass
class Outcome:
    """What came of a campaign; ``faults`` is empty where all is as it must be."""

    campaign: str
    seconds: float
    kills: list[str] = field(default_factory=list)
    drivers: int = 0
    epsilon: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def toy_recipe() -> Recipe:
    privacy = TOY.privacy.model_copy(update={"training": TOY.training})
    return TOY.model_copy(update={"privacy": privacy})


def federation(folder: Path, sites: Sequence[str]) -> LocalFederation:
    """Return a federation with cases at every site, not started yet."""
    made = LocalFederation(
        folder, sites=sites, task="toy", recipe=toy_recipe(), policy=POLICY,
        site_settings={"device": "cpu"},
    )  # fmt: skip
    for name in sites:
        fill(made.site(name), 24, "train")
        fill(made.site(name), 8, "holdout")
    return made


def run(
    made: LocalFederation,
    *,
    rounds: int,
    kills: int = 0,
    seed: int = 0,
    targets: Sequence[str] = (),
    pause: tuple[float, float] = (2.0, 12.0),
    say: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Run one campaign to its end, with ``kills`` processes killed meanwhile, and check it all."""
    sites = made.site_names
    begin = time.monotonic()
    campaign = made.start_campaign(
        toy_recipe(), rounds=rounds, epsilon=EPSILON, quorum=len(sites), attempts=50,
        round_deadline_seconds=90.0, site_wait_seconds=120.0,
    )  # fmt: skip
    outcome = Outcome(campaign, 0.0)
    over = threading.Event()

    def disturb() -> None:
        dice = random.Random(seed)
        order = [targets[i % len(targets)] for i in range(kills)]
        dice.shuffle(order)
        if not _begun(made, campaign, over):
            return
        for target in order:
            if over.wait(dice.uniform(*pause)):
                return
            while (hit := kill(made, target)) is None:  # it is just being started again
                if over.wait(0.2):
                    return
            outcome.kills.append(hit)
            say(f"{time.monotonic() - begin:6.1f} s  kill -9 {hit}")

    killer = threading.Thread(target=disturb)
    killer.start()
    try:
        ended = made.wait_campaign(campaign, timeout=SECONDS_LIMIT)
        if ended.state != "finished":
            outcome.faults.append(f"the campaign is {ended.state}")
    except Exception as error:
        outcome.faults.append(f"{type(error).__name__}: {error}")
    finally:
        over.set()
        killer.join()
    outcome.seconds = time.monotonic() - begin
    examine(made, outcome, rounds=rounds)
    return outcome


def _begun(made: LocalFederation, campaign: str, over: threading.Event) -> bool:
    """Wait for the first round: what is killed before it costs nothing."""
    registry = Registry.open(made.coordinator)
    try:
        while not registry.rounds(campaign):
            if over.wait(0.2):
                return False
        return True
    finally:
        registry.close()


def kill(made: LocalFederation, target: str) -> str | None:
    """Kill a process; its name, or None where there is none at this moment."""
    with suppress(psutil.Error, ProcessLookupError):
        if target != SERVERAPP:
            os.kill(made.pid(target), signal.SIGKILL)
            return target
        for child in psutil.Process(made.pid("superexec")).children(recursive=True):
            if "flwr-serverapp" in " ".join(child.cmdline()):
                child.kill()
                return target
    return None


def examine(made: LocalFederation, outcome: Outcome, *, rounds: int) -> None:
    """Hold registry, ledgers, audit logs and disk of a campaign against what must be."""
    campaign, faults = outcome.campaign, outcome.faults
    wanted = Counter({(n, s): 1 for n in range(1, rounds + 1) for s in made.site_names})
    registry = Registry.open(made.coordinator)
    try:
        found = [r for r in registry.rounds(campaign) if r.purpose == "train"]
        if [(r.number, r.state) for r in found] != [(n, "finished") for n in range(1, rounds + 1)]:
            faults.append(f"rounds: {[(r.number, r.state) for r in found]}")
        for earlier, later in pairwise(found):
            if earlier.aggregate_digest != later.base_digest:
                faults.append(f"round {later.number} does not begin where the last one ended")
        contributions = registry.contributions(campaign)
        accepted = Counter((c.round, c.site) for c in contributions
                           if c.outcome == "accepted" and c.round <= rounds)  # fmt: skip
        if accepted != wanted:
            faults.append(f"accepted, but for the wanted: {accepted - wanted}, {wanted - accepted}")
        moves = [line.entry() for line in registry.audit.lines(kinds=("campaign-moved",))]
        own = [m for m in moves if isinstance(m, CampaignMoved) and m.campaign == campaign]
        outcome.drivers = sum(m.action == "take" for m in own)
        if [m.action for m in own][-1:] != ["finish"] or len(
            registry.candidates(campaign=campaign)
        ) != 1:
            faults.append(f"moves: {[m.action for m in own]}")
    finally:
        registry.close()
    for name in made.site_names:
        with PrivacyLedger.open(made.site(name)) as ledger:
            ledger.verify_chain()
            lines = [x for x in ledger.entries() if x.campaign == campaign]
            reserved = Counter(x.round for x in lines if x.kind == "reserve")
            if reserved != Counter(range(1, rounds + 1)):
                faults.append(f"{name} reserved {dict(reserved)}")
            outcome.epsilon[name] = ledger.spent(POLICY.delta).campaigns[campaign]
    report = audit([made.site(n).folder for n in made.site_names], made.coordinator.folder)
    if not report.whole:
        faults.append(f"audit: {report}")
    left = list(campaign_folder(made.coordinator, campaign).glob("answers-*"))
    if left:
        faults.append(f"single sites' answers are left: {left}")
