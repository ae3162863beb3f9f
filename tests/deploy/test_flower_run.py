"""What the `flwr` command answers, in the shapes that Flower 1.41 gives; a fake command speaks."""

import contextlib
import json
import socket
import ssl
import stat
import sys
import threading
import tomllib
from pathlib import Path

import pytest

from common.errors import ProcessError
from deploy import flower_run
from deploy.provision import provision
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


@pytest.mark.parametrize("who", ["another federation", "a web server"])
def test_a_superlink_that_is_not_ours_is_called_so(who: str, flwr: Path, tmp_path: Path) -> None:
    ours, other = (certified(tmp_path / name) for name in ("ours", "other"))
    (flwr / "answer").write_text(
        '{"success": false, "error-message": "Check your network connection."}'
    )
    (flwr / "code").write_text("1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        listening = threading.Thread(
            target=answer, args=(server, other if who == "another federation" else None)
        )
        listening.start()
        settings = ours.model_copy(update={"superlink_port": server.getsockname()[1]})
        with pytest.raises(ProcessError) as caught:
            flower_run.start_run(settings, "campaign")
        listening.join()
    said = caught.value.line()
    assert caught.value.code == "superlink-not-ours"
    assert str(settings.folder) in said
    assert ("certificate does not verify" in said) is (who == "another federation")
    assert "network" not in said


def certified(folder: Path) -> CoordinatorSettings:
    provision(folder, sites=["north"], task="dermoscopy")
    return CoordinatorSettings.read(folder / "coordinator")


def answer(server: socket.socket, owner: CoordinatorSettings | None) -> None:
    """Answer one connection: with an owner's certificate, or in plain text."""
    connection, _ = server.accept()
    with connection:
        if owner is None:
            connection.recv(2000)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            return
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(owner.keys / "server.crt", owner.keys / "server.key")
        with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True):
            pass


def test_the_bundle_ships_no_code() -> None:
    bundle = tomllib.loads((flower_run.BUNDLE / "pyproject.toml").read_text())
    app = bundle["tool"]["flwr"]["app"]
    assert app["fab-include"] == ["pyproject.toml"]
    assert app["components"] == {"serverapp": "server.app:app", "clientapp": "client.app:app"}
    assert app["config"] == {"campaign": ""}
