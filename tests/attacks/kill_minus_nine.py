"""A training site is killed with -9 at random moments, again and again.

Afterwards: what was really trained, as the training itself wrote it down before its first noise,
is recomputed by both accountants and never exceeds what the ledger says; the chain verifies after
every kill; and no round was trained twice, though each restart asks for the last one again, once
as it was and once under a fresh nonce.

``python -m tests.attacks.kill_minus_nine --kills 200`` forks a child for each kill from a process
that has imported everything, as `client.runner` does.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from client import round_handler
from client.privacy.accounting import Budget, Spend, epsilon
from client.privacy.ledger import Check, PrivacyLedger
from client.privacy.ledger_lines import LedgerLine, RoundRequest
from client.training import PrivateStep, Trained, train_private
from common.plan import RoundPlan
from tests.attacks.attack import Attack, Finding
from tests.attacks.hospital import BASE, Hospital, without_outbox
from tests.client.rounds import make_plan

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 20_000
LONGEST = 1.5
DELTA = 1e-5
_reserve_late = False


@dataclass(frozen=True)
class Outcome:
    """What the kills left behind; epsilons by RDP and PRV, recomputed and of the ledger."""

    kills: int
    reserved: int
    trained: int
    twice: int
    unreserved: int
    rdp: float
    ledger_rdp: float
    prv: float
    ledger_prv: float

    @property
    def broken(self) -> bool:
        more = self.rdp > self.ledger_rdp * (1 + 1e-9) or self.prv > self.ledger_prv * (1 + 1e-9)
        return more or self.twice > 0 or self.unreserved > 0


def torture(folder: Path, kills: int, *, reserve_late: bool) -> Outcome:
    """Kill a site ``kills`` times; raises PrivacyRefused if its ledger does not verify."""
    hospital = Hospital.build(
        folder, epsilon_campaign=50.0, epsilon_life=50.0, rounds_per_day=10**6
    )
    trace = folder / "trained"
    trace.touch()
    forecast = _plan(1).model_copy(update={"purpose": "preflight"})
    hospital.ask(forecast)  # fills the accountant's cache, which forked children inherit
    for _ in range(kills):
        child = os.fork()
        if child == 0:
            _train_for_ever(hospital, trace, reserve_late=reserve_late)
        time.sleep(random.uniform(0, LONGEST))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with PrivacyLedger.open(hospital.settings) as ledger:
            ledger.verify_chain()
    return _outcome(hospital, trace, kills)


def _train_for_ever(hospital: Hospital, trace: Path, *, reserve_late: bool) -> NoReturn:
    try:
        _write_down_training(trace)
        if reserve_late:
            _reserve_after_training()
        reserved = [line for line in hospital.lines() if line.kind == "reserve"]
        number = 1
        if reserved:
            last = reserved[-1]
            number = last.round + 1
            for nonce in (last.nonce, None):
                hospital.ask(_plan(last.round, nonce=nonce))
        while True:
            hospital.ask(_plan(number))
            number += 1
    finally:  # only a defect comes here; whatever it is, this child must not go on as its parent
        os._exit(1)


def _plan(number: int, *, nonce: str | None = None) -> RoundPlan:
    return make_plan(
        base=BASE, round=number, rounds=ROUNDS, epsilon=50.0, steps=1, evaluate=False, nonce=nonce
    )


def _write_down_training(trace: Path) -> None:
    """Every training is written down before its noise is drawn: killed from there on, it counts."""
    stream = os.open(trace, os.O_WRONLY | os.O_APPEND)
    asked: list[str] = []
    reserve = round_handler._reserve

    def noting(ledger: PrivacyLedger, task: round_handler.RoundTask) -> LedgerLine:
        line = reserve(ledger, task)
        asked[:] = [task.plan.campaign, str(task.plan.round)]
        return line

    def writing(*arguments: object, step: PrivateStep, **named: object) -> Trained:
        job = arguments[2]
        line = [*asked, step.noise_multiplier, job.training.sampling_rate]  # type: ignore[attr-defined]
        line.append(job.training.local_steps)  # type: ignore[attr-defined]
        os.write(stream, (json.dumps(line) + "\n").encode())
        return train_private(*arguments, step=step, **named)  # type: ignore[arg-type]

    round_handler._reserve = noting
    round_handler.train_private = writing


def _reserve_after_training() -> None:
    """The mistake that the ledger must not make: spend first, write down later."""
    reserve, outcome = PrivacyLedger.reserve, PrivacyLedger.outcome
    waiting: dict[str, tuple[RoundRequest, Budget]] = {}

    def later(
        _ledger: PrivacyLedger, request: RoundRequest, budget: Budget, *, first: Check | None = None
    ) -> LedgerLine:
        waiting[request.nonce] = (request, budget)
        blank = dict.fromkeys(LedgerLine.__dataclass_fields__, "")
        known = {name: value for name, value in vars(request).items() if name in blank}
        line = blank | known | {"noise_multiplier": 2.0, "kind": "reserve", "delta": DELTA}
        return LedgerLine(**line)  # type: ignore[arg-type]

    def now(ledger: PrivacyLedger, line: LedgerLine, what: str) -> LedgerLine:
        return outcome(ledger, reserve(ledger, *waiting[line.nonce]), what)

    PrivacyLedger.reserve = later  # type: ignore[method-assign]
    PrivacyLedger.outcome = now  # type: ignore[method-assign]
    without_outbox(pytest.MonkeyPatch())


def _outcome(hospital: Hospital, trace: Path, kills: int) -> Outcome:
    trained = [json.loads(line) for line in trace.read_text().splitlines()]
    lines = [line for line in hospital.lines() if line.kind == "reserve"]
    reserved = {(line.campaign, str(line.round)) for line in lines}
    rounds = Counter((campaign, number) for campaign, number, *_ in trained)
    spent = [Spend(sigma, rate, steps) for _, _, sigma, rate, steps in trained]
    said = [line.spend for line in lines if line.spend is not None]
    return Outcome(
        kills=kills,
        reserved=len(lines),
        trained=len(trained),
        twice=sum(count > 1 for count in rounds.values()),
        unreserved=len(rounds.keys() - reserved),
        rdp=epsilon(spent, DELTA),
        ledger_rdp=epsilon(said, DELTA),
        prv=epsilon(spent, DELTA, kind="prv"),
        ledger_prv=epsilon(said, DELTA, kind="prv"),
    )


def _killed(folder: Path, kills: int) -> Finding:
    """Run the kills in a process of their own, which may fork."""
    command = [sys.executable, "-m", "tests.attacks.kill_minus_nine", "--kills", str(kills)]
    command += ["--folder", str(folder)] + (["--reserve-late"] if _reserve_late else [])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.stdout, ended.stderr[-2000:]
    found = Outcome(**json.loads(ended.stdout))
    what = f"{found.trained} rounds trained, {found.reserved} reserved, {found.twice} twice"
    figure = f"epsilon {found.rdp:.3f} of {found.ledger_rdp:.3f} (PRV {found.prv:.3f})"
    return Finding(found.broken, f"{kills} kills: {what}", figure)


def short(folder: Path) -> Finding:
    return _killed(folder, 8)


def full(folder: Path) -> Finding:
    return _killed(folder, 200)


def reserve_late(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sys.modules[__name__], "_reserve_late", True)


ATTACKS = (
    Attack(
        "kill-minus-nine",
        "malicious coordinator",
        "a site killed with -9 while it trains",
        "epsilon is reserved before it is spent",
        short,
        reserve_late,
        full,
    ),
)


def main() -> int:
    """Kill, print the outcome as JSON, and return the exit status."""
    parser = argparse.ArgumentParser(description="Kill a training site at random moments.")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="an empty folder; a temporary one by default")
    parser.add_argument("--reserve-late", action="store_true", help="switch the defence off")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as spare:
        folder = arguments.folder or Path(spare)
        found = torture(folder, arguments.kills, reserve_late=arguments.reserve_late)
    sys.stdout.write(json.dumps(asdict(found)) + "\n")
    return int(found.broken)


if __name__ == "__main__":
    sys.exit(main())
