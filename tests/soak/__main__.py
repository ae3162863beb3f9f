"""``python -m tests.soak [SEED]``: 6 rounds on 4 sites, 20 kills, then an undisturbed campaign."""

from __future__ import annotations

import secrets
import sys
import tempfile
from pathlib import Path

from tests.soak.chaos import NAMES, SERVERAPP, federation, run

TARGETS = (
    *(SERVERAPP, "superlink", "superexec", "coordinator", SERVERAPP, "keeper"),
    *(f"{name}-node" for name in NAMES),
)
"""Twice each makes 20."""


def say(line: str) -> None:
    """Tell it at once: a run takes minutes."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Print what was killed and what came of it; 1 where something is not as it must be."""
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else secrets.randbelow(2**31)
    say(f"seed {seed}")
    with tempfile.TemporaryDirectory() as folder, federation(Path(folder) / "f", NAMES) as made:
        made.start()
        made.wait_ready()
        disturbed = run(made, rounds=6, kills=20, seed=seed, targets=TARGETS, say=say)
        calm = run(made, rounds=6)
    say(f"disturbed: {disturbed.seconds:.0f} s, {len(disturbed.kills)} kills, "
          f"{disturbed.drivers} ServerApps; calm: {calm.seconds:.0f} s")  # fmt: skip
    for name in NAMES:
        say(f"{name}: epsilon {disturbed.epsilon[name]:.6f}, calm {calm.epsilon[name]:.6f}")
    faults = disturbed.faults + calm.faults
    if any(abs(disturbed.epsilon[n] - calm.epsilon[n]) > 1e-6 for n in NAMES):
        faults.append("epsilon is not that of an undisturbed run")
    for fault in faults:
        say(f"FAULT {fault}")
    say("not as it must be" if faults else "as it must be")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
