"""`wardround site withdraw`: a patient objects, or a case was a mistake."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from common.errors import ConfigurationError, InputRefused
from common.wording import number
from deploy.commands.flags import AsJson, Site
from deploy.console import EXIT_FAILED, emit, progress_console
from deploy.tables import Table

if TYPE_CHECKING:
    from client.withdrawal import Withdrawal


def withdraw(
    site: Site = Path(),
    patient: Annotated[
        str | None, typer.Option(help="The patient's id, as the hospital writes it; - reads it.")
    ] = None,
    case: Annotated[str | None, typer.Option(help="One case's id; its patient stays.")] = None,
    as_json: AsJson = False,
) -> None:
    """Take a patient out of all later training and evaluation, and tell what they reached before.

    The images are deleted. Give --patient - to type the id unseen, or to pipe it in, so that it
    stands in no shell history. What could not be done is named, and the exit code is 1: each
    round, the service's next start and the same command again try it again.
    """
    from client.settings import SiteSettings
    from client.withdrawal import withdraw_case, withdraw_patient
    from deploy.commands.site_pause import console_person

    if (patient is None) == (case is None):
        raise ConfigurationError(
            "Give either --patient or --case.", action="Name one of the two.", code="usage"
        )
    settings = SiteSettings.read(site)
    if case is not None:
        document = withdraw_case(settings, case, by=console_person())
    else:
        identifier = _asked_for() if patient == "-" else str(patient)
        document = withdraw_patient(settings, identifier, by=console_person())
    emit(document, as_json=as_json, show=lambda console: _show(document, console))
    if document.unfinished:
        for problem in document.unfinished:
            progress_console.print(f"Not done yet: {problem}", highlight=False, soft_wrap=True)
        raise typer.Exit(EXIT_FAILED)


def _asked_for() -> str:
    """Return the patient's id: typed unseen on a terminal, else the first line of stdin.

    ``getpass``, which asks unseen, reads the terminal even where the id is piped in.
    """
    if sys.stdin.isatty():
        return str(typer.prompt("Patient id", hide_input=True))
    identifier = sys.stdin.readline().rstrip("\r\n")
    if not identifier:
        raise InputRefused(
            "No patient's id came in.",
            action="Pipe it in as one line, or run the command on a terminal.",
            code="patient-missing",
        )
    return identifier


def _show(document: Withdrawal, console: Console) -> None:
    console.print(
        f"{number(document.cases, 'case')} withdrawn at {document.site} "
        f"({'training' if document.side == 'train' else 'holdout'} side), "
        "from all later rounds.",
        highlight=False,
    )
    if document.side != "train":
        console.print("The patient was held out: no model was trained on these cases.")
        return
    if not document.campaigns:
        console.print("No round was trained while they were here.")
        return
    table = Table(title="Rounds that could have sampled the patient")
    for heading in ("campaign", "rounds", "epsilon", "releases kept here", "last round"):
        table.add_column(heading)
    for touched in document.campaigns:
        table.add_row(
            touched.campaign,
            ", ".join(str(number) for number in touched.rounds) or "none",
            "without privacy" if touched.epsilon is None else f"{touched.epsilon:.3f}",
            ", ".join(f"v{version}" for version in touched.releases) or "–",
            f"{touched.last:%Y-%m-%d %H:%M} UTC",
        )
    console.print(table)
    console.print(
        "What a released model has learnt cannot be taken out of it; epsilon bounds what these "
        "rounds tell about one patient.",
        soft_wrap=True,
    )
