"""`wardround coordinator trigger add|list|remove|fire`: when a task is trained again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import BaseModel, ConfigDict, ValidationError
from rich.console import Console

from common.errors import ConfigurationError
from common.recipe import load_recipe
from deploy.commands.agreed_networks import check_network_choice
from deploy.commands.flags import AsJson, Folder
from deploy.console import RECIPE_HELP, emit
from deploy.tables import Table

if TYPE_CHECKING:
    from server.settings import CoordinatorSettings
    from server.triggers.rules import Rule
    from server.triggers.store import Firing, Trigger, TriggerStore

Name = Annotated[str, typer.Argument(help="The trigger's name.")]

commands = typer.Typer(
    no_args_is_help=True, help="When a task is trained again: schedule, new cases, drift, by hand."
)


class FiringDocument(BaseModel):
    """One firing: when, why, and what came of it."""

    model_config = ConfigDict(frozen=True)

    fired_at: datetime
    state: str
    reason: str
    campaign: str | None
    code: str | None


class TriggerDocument(BaseModel):
    """One trigger; ``standing`` says why it is due and does not fire."""

    model_config = ConfigDict(frozen=True)

    name: str
    task: str
    rule: str
    starts: bool
    approved_by: str | None
    next_at: datetime | None
    standing: str | None
    firings: tuple[FiringDocument, ...]


class Triggers(BaseModel):
    """What ``trigger list`` prints."""

    model_config = ConfigDict(frozen=True)

    triggers: tuple[TriggerDocument, ...]


class TriggerResult(BaseModel):
    """What the other commands print."""

    model_config = ConfigDict(frozen=True)

    trigger: str
    campaign: str | None = None


@commands.command("add")
def add(
    name: Name,
    recipe: Annotated[
        str,
        typer.Option(help=RECIPE_HELP),
    ],
    schedule: Annotated[
        str | None, typer.Option(help="Cron expression of five fields, UTC: '0 3 1 * *'.")
    ] = None,
    new_cases: Annotated[
        int | None, typer.Option(min=1, help="Newly confirmed cases over all sites.")
    ] = None,
    drift: Annotated[
        int | None, typer.Option(min=1, help="Sites that report an alarm of drift.")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Training rounds.", show_default="the recipe's")
    ] = None,
    epsilon: Annotated[
        float | None,
        typer.Option(help="Each site's epsilon for the campaign.", show_default="the recipe's"),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Another timm network.", show_default="the recipe's")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Another image size in pixels.", show_default="the recipe's")
    ] = None,
    start: Annotated[
        bool, typer.Option("--start", help="Let the campaign go at once; needs --approved-by.")
    ] = False,
    approved_by: Annotated[
        str | None, typer.Option(help="Who allowed that campaigns start by themselves.")
    ] = None,
    folder: Folder = Path(),
    as_json: AsJson = False,
) -> None:
    """Add a trigger: by schedule, by new cases, by drift, or (with none of them) by hand."""
    from server.triggers.store import Trigger, TriggerPlan

    agreed = load_recipe(recipe)
    chosen = agreed.with_changes(model=model, image_size=image_size)
    now = datetime.now(UTC)
    try:
        trigger = Trigger(
            name=_identifier(name),
            rule=_rule(schedule, new_cases, drift),
            recipe=chosen,
            plan=TriggerPlan(rounds=rounds, epsilon=epsilon),
            starts=start,
            approved_by=approved_by,
            created_at=now,
            looked_at=now,
            standing=None,
        )
    except ValidationError as error:
        faults = "; ".join(f"{e['loc'][-1]}: {e['msg']}" for e in error.errors())
        raise ConfigurationError(
            f"The trigger breaks a rule: {faults}.",
            action="Correct the field that is named.",
            code="trigger-malformed",
        ) from error
    with _store(folder) as (settings, store):
        check_network_choice(settings, agreed, model)
        store.add(trigger)
    document = TriggerResult(trigger=name)
    emit(document, as_json=as_json, show=lambda console: console.print(f"Trigger {name} added."))


@commands.command("list")
def list_triggers(folder: Folder = Path(), as_json: AsJson = False) -> None:
    """List all triggers, with when and why each fired."""
    with _store(folder) as (_, store):
        found = tuple(_document(t, store.firings(t.name)) for t in store.all())

    def show(console: Console) -> None:
        table = Table("trigger", "task", "rule", "starts", "next", "last fired", "why", "campaign")
        for t in found:
            last = t.firings[0] if t.firings else None
            why = t.standing or (last.reason if last else "")
            table.add_row(
                *(t.name, t.task, t.rule, "yes" if t.starts else "no", _moment(t.next_at)),
                *(_moment(last.fired_at if last else None), why),
                (last.campaign or last.code or "–") if last else "–",
            )
        console.print(table if found else "There is no trigger yet.")

    emit(Triggers(triggers=found), as_json=as_json, show=show)


@commands.command("remove")
def remove(name: Name, folder: Folder = Path(), as_json: AsJson = False) -> None:
    """Remove a trigger; what it fired stays on record."""
    with _store(folder) as (_, store):
        store.remove(name)
    document = TriggerResult(trigger=name)
    emit(document, as_json=as_json, show=lambda console: console.print(f"Trigger {name} removed."))


@commands.command("fire")
def fire(name: Name, folder: Folder = Path(), as_json: AsJson = False) -> None:
    """Fire a trigger by hand, unless a campaign of its task has not ended."""
    from server.triggers.creation import create_in_child
    from server.triggers.evaluator import TriggerEvaluator

    with _store(folder) as (settings, store):
        evaluator = TriggerEvaluator(store, lambda trigger: create_in_child(settings, trigger))
        campaign = evaluator.fire(name)
    document = TriggerResult(trigger=name, campaign=campaign)
    emit(document, as_json=as_json, show=lambda console: console.print(f"Campaign {campaign}."))


def _rule(schedule: str | None, new_cases: int | None, drift: int | None) -> Rule:
    from server.triggers.rules import DriftRule, HandRule, NewCasesRule, ScheduleRule

    if sum(given is not None for given in (schedule, new_cases, drift)) > 1:
        raise ConfigurationError(
            "A trigger has one rule.",
            action="Add a trigger for each of --schedule, --new-cases and --drift.",
            code="trigger-malformed",
        )
    if schedule is not None:
        return ScheduleRule(cron=schedule)
    if new_cases is not None:
        return NewCasesRule(cases=new_cases)
    return HandRule() if drift is None else DriftRule(sites=drift)


def _identifier(name: str) -> str:
    import re

    if re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", name) is None:
        raise ConfigurationError(
            f"{name!r} is no name for a trigger.",
            action="Use lower-case letters, digits, dots and dashes.",
            code="trigger-malformed",
        )
    return name


@contextmanager
def _store(folder: Path) -> Iterator[tuple[CoordinatorSettings, TriggerStore]]:
    from common.database import open_database
    from server.registry.registry import Registry
    from server.settings import CoordinatorSettings
    from server.triggers.store import TriggerStore

    settings = CoordinatorSettings.find(folder)
    Registry.open(settings).close()  # brings the schema up to date
    engine = open_database(settings.database)
    try:
        yield settings, TriggerStore(engine)
    finally:
        engine.dispose()


def _document(trigger: Trigger, firings: tuple[Firing, ...]) -> TriggerDocument:
    from server.triggers.rules import ScheduleRule, next_occurrence

    rule = trigger.rule
    coming = None
    if isinstance(rule, ScheduleRule):
        coming = next_occurrence(rule, datetime.now(UTC))
    fields = ", ".join(f"{k} {v}" for k, v in rule.model_dump(exclude={"kind"}).items())
    return TriggerDocument(
        name=trigger.name,
        task=trigger.task,
        rule=f"{rule.kind}: {fields}" if fields else rule.kind,
        starts=trigger.starts,
        approved_by=trigger.approved_by,
        next_at=coming,
        standing=trigger.standing,
        firings=tuple(
            FiringDocument(
                fired_at=f.fired_at,
                state=f.state,
                reason=f.reason,
                campaign=f.campaign,
                code=f.code,
            )
            for f in firings
        ),
    )


def _moment(value: datetime | None) -> str:
    return "–" if value is None else f"{value:%Y-%m-%d %H:%M}"
