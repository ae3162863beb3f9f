"""``python -m tests.soak.site [--kills 100] [--seed N]``: a site's service killed with -9.

What serves is killed at random moments, every fifth time its parent as well, while people upload,
confirm, review and predict, and while releases are published, so that swaps are under way. After
each kill, and before the service is back: what was acknowledged is on disk, images are whole, what
is to answer is a verified release. Then it must be back, ready, in under ten seconds; and in the
end it must serve the newest release.

For ten kills the site accepts what passes its self-test, so that swaps end within a life and are
killed in the middle; for the next ten it compares releases on its holdout, which soon takes longer
than any life, so that this is what is killed.
"""

from __future__ import annotations

import argparse
import random
import secrets
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from client.audit import open_site_audit
from client.cases.store import CaseStore
from client.releases.cache import ReleaseCache
from client.releases.decision_file import DecisionFile
from client.settings import SiteSettings
from common.audit_chain import verify
from common.audit_entries import PredictionMade
from common.errors import WardroundError
from common.folders import write_private
from common.imaging import decode
from tests.releases import Coordinator, served
from tests.soak.site_load import People, Told, picture
from tests.soak.site_process import SiteProcess, publish, site_folder, weights

READY_LIMIT = 10.0
LONGEST_LIFE = 6.0
RULE_EVERY = 10
WHOLE_EVERY = 5
"""Every fifth time its parent is killed as well, as when the machine loses its power."""


@dataclass
class Outcome:
    """What came of it; ``faults`` is empty where all is as it must be."""

    kills: int = 0
    ready_seconds: list[float] = field(default_factory=list)
    """After what serves was killed, and its parent forked another."""
    restart_seconds: list[float] = field(default_factory=list)
    """After all of it was killed: a new process that imports everything."""
    processor_seconds: list[float] = field(default_factory=list)
    cases: int = 0
    confirmed: int = 0
    predictions: int = 0
    unaudited: int = 0
    """Answers without a line: an answer waits a second for its line, and no longer."""
    versions: int = 0
    swaps_seen: set[int] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)

    def line(self) -> str:
        """Return all of it in one line."""
        return (
            f"{self.kills} kills; ready again after (s): {_spread(self.ready_seconds)}; where all "
            f"had to start anew: {_spread(self.restart_seconds)}; processor time until then (s): "
            f"{_spread(self.processor_seconds)}; {self.cases} cases stored, "
            f"{self.confirmed} confirmed, {self.predictions} predictions ({self.unaudited} "
            f"without an audit line), {self.versions} releases published, "
            f"{len(self.swaps_seen)} seen serving"
        )


def _spread(values: list[float]) -> str:
    places = (("least", 0), ("median", 50), ("p95", 95), ("most", 100))
    known = np.array(values or [float("nan")])
    return ", ".join(f"{name} {np.percentile(known, q):.2f}" for name, q in places)


class Witness:
    """Holds what the service told people against what is on disk while it is dead."""

    def __init__(self, settings: SiteSettings, told: Told) -> None:
        self._settings, self._told = settings, told
        self._checked: set[str] = set()
        self._audited = 0
        self.unaudited = 0

    def faults(self, *, everything: bool = False) -> list[str]:
        """Return what is not as it must be."""
        return [*self._cases(everything), *self._release(), *self._audit()]

    def _cases(self, everything: bool) -> list[str]:
        found = []
        store = CaseStore.open(self._settings)
        try:
            for case_id, seed in list(self._told.stored.items()):
                sure = case_id in self._told.confirmed
                key = f"{case_id} {sure}"
                if key in self._checked and not everything:
                    continue
                self._checked.add(key)
                try:
                    case = store.get(case_id)
                    whole = decode(store.image_bytes(case))
                except WardroundError as error:
                    found.append(f"case {case_id} was acknowledged and is lost: {error.code}")
                    continue
                if not np.array_equal(whole, decode(picture(seed))):
                    found.append(f"case {case_id}: another image")
                label = self._told.confirmed.get(case_id)
                if label is not None and (case.status, case.label) != ("confirmed", label):
                    found.append(f"case {case_id} was confirmed and is {case.status} {case.label}")
        finally:
            store.close()
        return found

    def _release(self) -> list[str]:
        serving = DecisionFile(self._settings.releases).value().serving
        if serving is None:
            return ["nothing is to answer"]
        release = ReleaseCache(self._settings).answering()
        if release is None:
            return [f"release {serving.version} is to answer and is not whole"]
        release.load()
        return []

    def decisions(self) -> list[str]:
        """Every decision about a release stands in the audit log, the last life's perhaps not."""
        made = DecisionFile(self._settings.releases).value().decisions[:-1]
        with open_site_audit(self._settings) as audit:
            count = sum(1 for _ in audit.lines(kinds=["release-decided"]))
        return [f"{len(made)} decisions, {count} in the audit log"] if count < len(made) else []

    def _audit(self) -> list[str]:
        """The audit log is whole, and lacks no answer but those that it could not wait for."""
        told = list(self._told.predicted)[self._audited :]
        with open_site_audit(self._settings) as audit:
            broken = verify(audit)
            lines = audit.lines(kinds=["prediction"])
            entries = [line.entry() for line in lines]
        known = {e.request_id for e in entries if isinstance(e, PredictionMade)}
        self._audited += len(told)
        self.unaudited += sum(request not in known for request in told)
        return [f"the audit log: {fault}" for fault in broken]


def run(
    folder: Path,
    *,
    kills: int,
    seed: int,
    seconds: float = float("inf"),
    say: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Kill a site's service ``kills`` times, or for ``seconds``; return what came of it."""
    dice, told, outcome, told_faults = random.Random(seed), Told(), Outcome(), 0
    coordinator = Coordinator.create(folder / "coordinator")
    with served(coordinator) as port:
        site = SiteProcess(site_folder(folder / "site", coordinator, port))
        digests = {publish(coordinator, 1): 1}
        site.start()
        people = People(site, told, seed=seed)
        witness = Witness(site.settings, told)
        try:
            site.wait_ready()
            people.start()
            ends = time.monotonic() + seconds
            for number in range(1, kills + 1):
                if time.monotonic() > ends:
                    break
                if number % RULE_EVERY == 1:
                    _decide_by(site, ("accept", "check")[number // RULE_EVERY % 2])
                if number % 2 == 0:
                    digests[publish(coordinator, number)] = number
                time.sleep(dice.uniform(0.0, LONGEST_LIFE))
                before = site.health()
                whole = number % WHOLE_EVERY == 0
                with site.killed() if whole else site.service_killed():
                    outcome.faults += witness.faults()
                back = site.wait_ready()
                outcome.processor_seconds.append(site.processor_seconds())
                outcome.kills = number
                (outcome.restart_seconds if whole else outcome.ready_seconds).append(back)
                outcome.faults += _served(site, digests, before, outcome)
                used = outcome.processor_seconds[-1]
                say(f"kill {number}: ready after {back:.2f} s ({used:.2f} s of a processor)")
                for fault in outcome.faults[told_faults:]:
                    say(f"FAULT {fault}")
                told_faults = len(outcome.faults)
            with site.service_killed():  # a comparison that is under way goes by the rule before
                _decide_by(site, "accept")
            site.wait_ready()
            newest = max(digests)
            site.wait_for("the newest release", lambda found: found["model_version"] == newest)
            outcome.swaps_seen.add(newest)
        except KeyboardInterrupt:
            say("interrupted; looking at what is there")
        finally:
            people.stop()
            site.kill()
        outcome.faults += [*witness.faults(everything=True), *witness.decisions(), *told.faults]
    if len(outcome.swaps_seen) < outcome.kills // RULE_EVERY:
        outcome.faults.append(f"only {len(outcome.swaps_seen)} releases were ever seen serving")
    outcome.cases, outcome.confirmed = len(told.stored), len(told.confirmed)
    outcome.predictions, outcome.versions = len(told.predicted), len(digests)
    outcome.unaudited = witness.unaudited
    wrong = {v for v in set(told.predicted.values()) if v not in _names(digests)}
    outcome.faults += [f"an answer by an unknown model {version}" for version, _ in wrong]
    return outcome


def _decide_by(site: SiteProcess, rule: str) -> None:
    """Let the site's policy take releases by a rule from now on; it is read for each of them."""
    write_private(site.settings.policy, f'[releases]\non_release = "{rule}"\n'.encode())


def _served(
    site: SiteProcess, digests: dict[int, int], before: object, outcome: Outcome
) -> list[str]:
    found = site.health()
    if found is None:
        return ["ready, and then not"]
    version, digest = found["model_version"], found["model_digest"]
    outcome.swaps_seen.add(version)
    faults = []
    if (version, digest) not in _names(digests):
        faults.append(f"release {version} is served with the digest {digest}")
    if isinstance(before, dict) and (before["model_version"] or 0) > version:
        faults.append(f"release {before['model_version']} answered, then {version}")
    return faults


def _names(digests: dict[int, int]) -> set[tuple[int, str]]:
    return {(version, _digest(seed)) for version, seed in digests.items()}


_known: dict[int, str] = {}


def _digest(seed: int) -> str:
    from common.update import tensors_digest

    if seed not in _known:
        _known[seed] = tensors_digest(weights(seed))
    return _known[seed]


def main() -> int:
    """Print each kill and what came of all; 1 where something is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after these")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31))
    arguments = parser.parse_args()

    def say(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    say(f"seed {arguments.seed}")
    with tempfile.TemporaryDirectory() as folder:
        outcome = run(
            Path(folder),
            kills=arguments.kills,
            seed=arguments.seed,
            seconds=arguments.seconds,
            say=say,
        )
    say(outcome.line())
    all_seconds = (*outcome.ready_seconds, *outcome.restart_seconds)
    late = [seconds for seconds in all_seconds if seconds > READY_LIMIT]
    for fault in outcome.faults[:50]:
        say(f"FAULT {fault}")
    if late:
        say(f"{len(late)} times it took longer than {READY_LIMIT:.0f} s")
    say("not as it must be" if outcome.faults or late else "as it must be")
    return 1 if outcome.faults or late else 0


if __name__ == "__main__":
    sys.exit(main())
