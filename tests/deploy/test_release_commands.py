"""Decisions and accounts by command: what scripts read, where passwords may come from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from common.errors import InputRefused, ReleaseError, RoundFailed
from deploy.commands import release, user
from server.registry.registry import Registry
from tests.releases import TASK, Coordinator, approve, register

app = typer.Typer()
for name in ("approve", "refuse", "rollout", "hold", "rollback"):
    app.command(name)(getattr(release, name))
app.add_typer(user.commands, name="user")
PASSWORD = "four unrelated words here"


def run(coordinator: Coordinator, *arguments: str) -> dict[str, object]:
    folder = str(coordinator.settings.folder)
    result = CliRunner().invoke(app, [*arguments, "--folder", folder, "--json"])
    if result.exception is not None:
        raise result.exception
    document: dict[str, object] = json.loads(result.stdout)
    return document


@pytest.fixture
def registry(registry: Registry) -> Registry:
    register(registry, "north", "south")
    return registry


def test_a_release_by_commands_from_the_canary_to_the_rollback(
    coordinator: Coordinator, registry: Registry
) -> None:
    first, second = (approve(coordinator, registry, seed, approved=False) for seed in (1, 2))
    assert run(coordinator, "approve", first.id)["everywhere"] == 1
    with pytest.raises(RoundFailed, match="The champion has changed"):
        run(coordinator, "approve", second.id, "--site", "north")
    signed = run(coordinator, "approve", second.id, "--site", "north", "--champion-changed")
    assert (signed["everywhere"], signed["task"]) == (1, TASK)
    assert signed["limited"] == [{"version": 2, "sites": ["north"], "held": False}]
    held = run(coordinator, "hold", "2")
    assert held["limited"] == [{"version": 2, "sites": ["north"], "held": True}]
    assert run(coordinator, "rollout", "2")["everywhere"] == 2
    back = run(coordinator, "rollback", "1", "--reason", "worse at north")
    assert (back["everywhere"], back["limited"]) == (3, [])
    assert registry.release(3).manifest.lineage.restores == 1
    decided = registry.candidate(first.id).decided_by
    assert decided is not None
    assert decided.startswith("console-")
    with pytest.raises(RoundFailed):
        run(coordinator, "refuse", first.id, "--reason", "too late")
    with pytest.raises(InputRefused):
        run(coordinator, "rollout", "3", "--site", "nowhere")


def test_a_canary_against_another_champion_is_rolled_out_knowingly_or_not_at_all(
    coordinator: Coordinator, registry: Registry
) -> None:
    made = approve(coordinator, registry, 1, approved=False)
    run(coordinator, "approve", made.id)
    for seed in (2, 3):
        made = approve(coordinator, registry, seed, approved=False)
        run(coordinator, "approve", made.id, "--site", "north")
    assert run(coordinator, "rollout", "2")["everywhere"] == 2
    with pytest.raises(RoundFailed, match="not held against the current release"):
        run(coordinator, "rollout", "3")
    assert run(coordinator, "rollout", "3", "--champion-changed")["everywhere"] == 3


def test_a_rollback_to_weights_that_are_lost_withdraws_nothing(
    coordinator: Coordinator, registry: Registry
) -> None:
    for seed in (1, 2):
        made = approve(coordinator, registry, seed, approved=False)
        run(coordinator, "approve", made.id)
    first = registry.release(1).model_digest
    for folder in (coordinator.settings.models, coordinator.targets):
        next(folder.glob(f"*{first}*")).unlink()
    with pytest.raises(ReleaseError, match="neither in data/models nor in data/releases"):
        run(coordinator, "rollback", "1", "--reason", "worse at north")
    assert [release.state for release in registry.releases()] == 2 * ["everywhere"]


def test_no_site_may_take_a_release_zero(coordinator: Coordinator, registry: Registry) -> None:
    first = approve(coordinator, registry, 1, approved=False)
    folder = str(coordinator.settings.folder)
    result = CliRunner().invoke(app, ["approve", first.id, "--site", "north", "--folder", folder])
    assert result.exit_code == 0
    assert "v0" not in result.stdout
    assert f"{TASK}: no release is for every site yet." in result.stdout
    assert "v1: for north." in result.stdout


def test_a_password_comes_from_a_file_and_never_from_an_argument(
    coordinator: Coordinator, registry: Registry, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    made = run(
        coordinator, "user", "add", "anna", "--role", "approver", "--password-file", str(file)
    )
    assert [(a["name"], a["role"]) for a in made["accounts"]] == [("anna", "approver")]  # type: ignore[attr-defined]
    assert registry.accounts.verify("anna", PASSWORD) is not None
    assert PASSWORD not in json.dumps(made)
    with pytest.raises(InputRefused) as caught:
        run(coordinator, "user", "add", "bert")
    assert caught.value.code == "password-missing"
    help_text = CliRunner().invoke(app, ["user", "add", "--help"], env={"COLUMNS": "200"}).stdout
    assert "--password-file" in help_text
    assert "--password " not in help_text
    run(coordinator, "user", "disable", "anna")
    assert registry.accounts.verify("anna", PASSWORD) is None
    run(coordinator, "user", "enable", "anna")
    assert run(coordinator, "user", "token", "anna", "--days", "3")["days"] == 3
