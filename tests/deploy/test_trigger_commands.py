"""`wardround coordinator trigger …` on a coordinator's folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from common.errors import ConfigurationError, InputRefused, NotFound, RoundFailed, WardroundError
from deploy.commands.trigger import commands
from server.coordinator_folder import create_coordinator_folder

TINY = ("--recipe", "mammography", "--image-size", "32", "--rounds", "1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return create_coordinator_folder(tmp_path / "coordinator", releases=False).folder


def run(folder: Path, *arguments: str) -> dict[str, object]:
    line = [*arguments, "--folder", str(folder), "--json"]
    answer = CliRunner().invoke(commands, line)
    if answer.exception is not None:
        raise answer.exception
    document: dict[str, object] = json.loads(answer.stdout)
    return document


def test_a_trigger_is_added_fired_shown_and_removed(folder: Path) -> None:
    run(folder, "add", "monthly", *TINY, "--schedule", "0 3 1 * *")
    campaign = run(folder, "fire", "monthly")["campaign"]
    with pytest.raises(RoundFailed, match=str(campaign)):
        run(folder, "fire", "monthly")
    (shown,) = run(folder, "list")["triggers"]  # type: ignore[misc]
    assert shown["rule"] == "schedule: cron 0 3 1 * *"
    assert shown["next_at"].endswith("-01T03:00:00Z")
    (firing,) = shown["firings"]
    assert (firing["campaign"], firing["reason"]) == (campaign, "By hand.")
    run(folder, "remove", "monthly")
    assert run(folder, "list")["triggers"] == []


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("add", "t", *TINY, "--schedule", "whenever"), ConfigurationError),
        (("add", "t", *TINY, "--schedule", "0 3 * * *", "--drift", "1"), ConfigurationError),
        (("add", "T/../x", *TINY), ConfigurationError),
        (("add", "t", *TINY, "--epsilon", "-1"), ConfigurationError),
        (("add", "t", *TINY, "--start"), InputRefused),
        (("add", "t", *TINY, "--model", "test_resnet"), ConfigurationError),
        (("fire", "none"), NotFound),
        (("remove", "none"), NotFound),
    ],
)
def test_a_wrong_call_is_refused_and_nothing_is_kept(
    folder: Path, arguments: tuple[str, ...], error: type[WardroundError]
) -> None:
    with pytest.raises(error):
        run(folder, *arguments)
    assert run(folder, "list")["triggers"] == []
