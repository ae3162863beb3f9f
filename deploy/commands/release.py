"""`wardround coordinator release approve|refuse|rollout|hold|rollback`: decisions by command.

Each is recorded in the registry with who ran it, and published at once; a running coordinator's
service would do the same within seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import BaseModel, ConfigDict
from rich.console import Console

from deploy.commands.flags import AsJson, Folder
from deploy.commands.registry import coordinator_settings, opened_registry
from deploy.commands.user import caller
from deploy.console import emit

if TYPE_CHECKING:
    from server.registry.registry import Registry

Sites = Annotated[
    list[str] | None, typer.Option("--site", help="Only these sites; without it, every site.")
]
VersionArgument = Annotated[int, typer.Argument(help="The release's version.", min=1)]
ChampionChanged = Annotated[
    bool,
    typer.Option(
        "--champion-changed",
        help="Do it although the gate compared it with another release than the current.",
    ),
]
Why = Annotated[str, typer.Option(help="Why; it is kept on record.")]


class LimitedDocument(BaseModel):
    """A release that not every site may take; ``sites`` None is all, ``held`` stops it."""

    model_config = ConfigDict(frozen=True)

    version: int
    sites: tuple[str, ...] | None
    held: bool


class RolloutDocument(BaseModel):
    """What is signed now: which of a task's releases are meant for which sites.

    ``everywhere`` is the newest release for every site, 0 while there is none; ``candidate`` the
    one that was decided on, None where a release was.
    """

    model_config = ConfigDict(frozen=True)

    task: str
    candidate: str | None
    everywhere: int
    limited: tuple[LimitedDocument, ...]


def approve(
    candidate: Annotated[str, typer.Argument(help="The waiting candidate.")],
    site: Sites = None,
    champion_changed: ChampionChanged = False,
    folder: Folder = Path(),
    as_json: AsJson = False,
) -> None:
    """Approve a waiting candidate and publish it, for some sites first or for all."""
    with opened_registry(folder) as registry:
        found = registry.rollouts.approve(
            candidate, by=caller(), sites=site or None, champion_changed=champion_changed
        )
        _publish(registry, folder, found.draft.task, candidate, as_json=as_json)


def refuse(
    candidate: Annotated[str, typer.Argument(help="The waiting candidate.")],
    reason: Why,
    folder: Folder = Path(),
    as_json: AsJson = False,
) -> None:
    """Refuse a waiting candidate, for good."""
    with opened_registry(folder) as registry:
        found = registry.rollouts.refuse(candidate, by=caller(), reason=reason)
        _publish(registry, folder, found.draft.task, candidate, as_json=as_json)


def rollout(
    version: VersionArgument,
    site: Sites = None,
    champion_changed: ChampionChanged = False,
    folder: Folder = Path(),
    as_json: AsJson = False,
) -> None:
    """Let more sites, or all, take a release; a held one goes on."""
    with opened_registry(folder) as registry:
        found = registry.rollouts.roll_out(
            version, by=caller(), sites=site or None, champion_changed=champion_changed
        )
        _publish(registry, folder, found.task, None, as_json=as_json)


def hold(version: VersionArgument, folder: Folder = Path(), as_json: AsJson = False) -> None:
    """Stop a release from reaching more sites; who has it keeps it."""
    with opened_registry(folder) as registry:
        found = registry.rollouts.hold(version, by=caller())
        _publish(registry, folder, found.task, None, as_json=as_json)


def rollback(
    version: VersionArgument, reason: Why, folder: Folder = Path(), as_json: AsJson = False
) -> None:
    """Bring the weights of an older release back, under a higher version, for every site."""
    from server.publishing.publisher import ReleasePublisher
    from server.publishing.service import roll_back

    settings = coordinator_settings(folder)
    publisher = ReleasePublisher(settings)
    with opened_registry(folder) as registry:
        found = roll_back(publisher, registry, settings.models, version, by=caller(), reason=reason)
        _publish(registry, folder, found.draft.task, found.id, as_json=as_json)


def _publish(
    registry: Registry, folder: Path, task: str, candidate: str | None, *, as_json: bool
) -> None:
    from server.publishing.publisher import ReleasePublisher
    from server.publishing.service import follow_registry

    settings = coordinator_settings(folder)
    publisher = ReleasePublisher(settings)
    follow_registry(publisher, registry, settings.models)
    signed = publisher.rollout(task)
    document = RolloutDocument(
        task=task,
        candidate=candidate,
        everywhere=signed.version,
        limited=tuple(
            LimitedDocument(version=r.version, sites=r.sites, held=r.held) for r in signed.limited
        ),
    )

    def show(console: Console) -> None:
        everywhere = f"every site may take v{document.everywhere}"
        if not document.everywhere:
            everywhere = "no release is for every site yet"
        console.print(f"{task}: {everywhere}.", highlight=False)
        for r in document.limited:
            who = "every site" if r.sites is None else ", ".join(r.sites)
            how = "held" if r.held else f"for {who}"
            console.print(f"v{r.version}: {how}.", highlight=False, markup=False)

    emit(document, as_json=as_json, show=show)
