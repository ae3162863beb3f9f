"""What the `flwr` command answers, in the shapes that Flower 1.41 gives; a fake command speaks."""

import json
import stat
import sys
import tomllib
from pathlib import Path

import pytest

from common.errors import ProcessError
from deploy import flower_run
from server.coordinator_folder import create_coordinator_folder
from server.settings import CoordinatorSettings


@pytest.fixture
def settings(tmp_path: Path) -> CoordinatorSettings:
    return create_coordinator_folder(
        tmp_path / "coordinator", settings={"superlink_port": 23456}, releases=False
    )


@pytest.fixture
def flwr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the `flwr` beside the interpreter; it prints what `answer` holds."""
    command = tmp_path / "bin" / "flwr"
    command.parent.mkdir()
    command.write_text(
        f"#!{sys.executable}\n"
        "import json, os, pathlib, sys\n"
        "here = pathlib.Path(__file__).parent\n"
        "called = {'arguments': sys.argv[1:], 'home': os.environ['FLWR_HOME']}\n"
        "(here / 'called').write_text(json.dumps(called))\n"
        "print((here / 'answer').read_text())\n"
        "sys.exit(int((here / 'code').read_text()) if (here / 'code').exists() else 0)\n"
    )
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(command.with_name("python")))
    return command.parent


def test_starting_a_run_names_the_campaign_and_nothing_else(
    settings: CoordinatorSettings, flwr: Path
) -> None:
    (flwr / "answer").write_text('{"success": true, "run-id": "12345678901234567890"}')
    assert flower_run.start_run(settings, "20260101-000000-abcdef") == 12345678901234567890
    called = json.loads((flwr / "called").read_text())
    assert called["arguments"] == [
        "run",
        str(flower_run.BUNDLE),
        "coordinator",
        "--run-config",
        'campaign="20260101-000000-abcdef"',
        "--format",
        "json",
    ]
    config = tomllib.loads((Path(called["home"]) / "config.toml").read_text())
    assert config["superlink"]["coordinator"]["address"] == "127.0.0.1:23456"


@pytest.mark.parametrize("campaign", ['x" y="z', "../x", "", "a b"])
def test_a_campaign_that_is_no_identifier_starts_nothing(
    settings: CoordinatorSettings, flwr: Path, campaign: str
) -> None:
    with pytest.raises(ValueError, match="pattern"):
        flower_run.start_run(settings, campaign)
    assert not (flwr / "called").exists()


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("running", "running"),
        ("pending", "pending"),
        ("finished:completed", "completed"),
        ("finished:failed", "failed"),
        ("finished:stopped", "stopped"),
    ],
)
def test_run_state(settings: CoordinatorSettings, flwr: Path, status: str, state: str) -> None:
    answer = {"success": True, "runs": [{"run-id": "5", "status": status}]}
    (flwr / "answer").write_text("notice\n" + json.dumps(answer))
    assert flower_run.run_state(settings, 5) == state


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("", 0),
        ("no json", 1),
        ('{"success": false, "error-message": "the SuperLink is away"}', 1),
        ('{"success": true}', 0),
        ("[1]", 0),
    ],
)
def test_a_refusal_or_a_riddle_is_an_error(
    settings: CoordinatorSettings, flwr: Path, answer: str, code: int
) -> None:
    (flwr / "answer").write_text(answer)
    (flwr / "code").write_text(str(code))
    with pytest.raises(ProcessError) as caught:
        flower_run.start_run(settings, "campaign")
    if "away" in answer:
        assert "the SuperLink is away" in caught.value.line()


def test_the_bundle_ships_no_code() -> None:
    bundle = tomllib.loads((flower_run.BUNDLE / "pyproject.toml").read_text())
    app = bundle["tool"]["flwr"]["app"]
    assert app["fab-include"] == ["pyproject.toml"]
    assert app["components"] == {"serverapp": "server.app:app", "clientapp": "client.app:app"}
    assert app["config"] == {"campaign": ""}
