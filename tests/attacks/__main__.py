"""`make attacks`: run every attack with all defences on, and print what came of each.

The exit status is 1 if any attack was not stopped. ``--quick`` runs the short forms of those
that are measured; names run these attacks alone.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from tests.attacks.attack import Attack, Finding
from tests.attacks.suite import ATTACKS


def attack(one: Attack, *, quick: bool) -> Finding:
    """Run one attack in a folder of its own; one that breaks has shown nothing: not defended."""
    act = one.act if quick or one.full is None else one.full
    with tempfile.TemporaryDirectory(prefix="wardround-attack-") as folder:
        try:
            return act(Path(folder))
        except Exception as error:
            return Finding(True, f"the attack itself failed: {type(error).__name__}: {error}")


def main() -> int:
    """Run, print, and return the exit status."""
    parser = argparse.ArgumentParser(description="Attack this Wardround, and say what came of it.")
    parser.add_argument("names", nargs="*", help="attacks to run; all by default")
    parser.add_argument("--quick", action="store_true", help="short forms of the measured ones")
    arguments = parser.parse_args()
    chosen = [one for one in ATTACKS if not arguments.names or one.name in arguments.names]
    if arguments.names and len(chosen) < len(set(arguments.names)):
        parser.error("there is no attack of that name")
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    return report(chosen, quick=arguments.quick)


def report(chosen: list[Attack], *, quick: bool) -> int:
    """Print a line as each attack ends, then the table."""
    console, progress = Console(), Console(stderr=True)
    table = Table(title="Attacks on Wardround", show_lines=False)
    for heading in ("who", "attack", "defence", "what happened", "figure", "defended"):
        table.add_column(heading, overflow="fold")
    lost = missing = 0
    for one in chosen:
        logging.disable(logging.NOTSET if one.name.endswith(("-log", "-scraping")) else 50)
        if one.absent:
            table.add_row(one.actor, one.what, one.defence, one.absent, "", "not run")
            missing += 1
            continue
        found = attack(one, quick=quick)
        lost += found.won
        verdict = "[red]NO[/red]" if found.won else "yes"
        row = (one.actor, one.what, one.defence, found.happened, found.figure)
        table.add_row(*(part.replace("[", r"\[") for part in row), verdict)
        progress.print(f"{one.name}: {'NOT DEFENDED' if found.won else 'defended'}")
    console.print(table)
    run = len(chosen) - missing
    console.print(f"{run - lost} of {run} attacks were stopped; {missing} could not be run here.")
    return int(lost > 0)


if __name__ == "__main__":
    sys.exit(main())
