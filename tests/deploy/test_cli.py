"""`wardround` itself: what a script reads when its call is wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
import pytest
import typer

from deploy.cli import app, main
from deploy.console import EXIT_FAILED, EXIT_USAGE
from deploy.provision import provision


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["wardround", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["site", "import"], "usage"),
        (["site", "budget", "--bogus"], "usage"),
        (["coordinator", "release", "show", "none"], "usage"),
        (["site", "import", "--data", ".", "--site", "nowhere"], "configuration"),
        (["coordinator", "campaign", "list", "--folder", "nowhere"], "configuration"),
    ],
)
def test_a_failed_call_prints_one_document(
    arguments: list[str],
    code: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments, "--json") == EXIT_USAGE
    document = json.loads(capsys.readouterr().out)
    assert document["error"] == code
    assert document["what"]


def test_a_path_that_cannot_be_used_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    folder = str(tmp_path / "file" / "folder")
    call = ["provision", "--folder", folder, "--site", "north", "--task", "dermoscopy", "--json"]
    assert run(monkeypatch, *call) == EXIT_FAILED
    document = json.loads(capsys.readouterr().out)
    assert document["error"] == "store"
    assert folder in document["what"]


def test_a_person_reads_what_is_wrong_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "site", "import") == EXIT_USAGE
    said = capsys.readouterr()
    assert said.out == ""
    assert "--data" in said.err


def commands(found: click.Command, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if not isinstance(found, click.Group):
        yield path, found
        return
    for name, below in found.commands.items():
        yield from commands(below, *path, name)


def test_it_says_its_version(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"wardround {version('wardround')}\n"


def test_every_command_explains_itself_and_every_option_of_it() -> None:
    silent = ("True", "False", "None")
    for path, found in commands(typer.main.get_command(app)):
        assert found.help, path
        with click.Context(found, info_name=" ".join(path)) as context:
            for option in found.params:
                if not isinstance(option, click.Option):
                    continue
                where = (*path, option.opts[0])
                assert option.help, where
                record = option.get_help_record(context)
                assert record is not None, where
                said = " ".join(record)
                for value in getattr(option.type, "choices", ()):
                    assert str(getattr(value, "value", value)) in said, where
                default = option.default
                if default is not None and not callable(default) and not option.is_flag:
                    text = str(getattr(default, "value", default))
                    assert text in said or text in silent, where


def test_a_recipe_is_named_alike_everywhere_and_its_old_name_still_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for path, found in commands(typer.main.get_command(app)):
        for option in found.params:
            if option.name == "recipe":
                assert option.opts[0] == "--recipe", path
            assert option.name != "task", path
    for number, name in enumerate(("--recipe", "--task")):
        folder = str(tmp_path / str(number))
        call = ["provision", "--folder", folder, "--site", "north", name, "dermoscopy", "--json"]
        assert run(monkeypatch, *call) == 0
        assert json.loads(capsys.readouterr().out)["sites"][0]["name"] == "north"


def test_every_command_takes_a_coordinators_own_folder_before_one_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    provision(tmp_path, sites=["north"], task="dermoscopy")
    own = tmp_path / "coordinator"
    (own / "coordinator").mkdir()  # no coordinator's: to read it is to fail
    here = ["--folder", str(own)]
    for arguments in (
        ["coordinator", "campaign", "list", *here],
        ["coordinator", "campaign", "cancel", "none", *here],
        ["coordinator", "release", "list", *here],
        ["coordinator", "release", "report", "1", *here],
        ["coordinator", "trigger", "list", *here],
        ["coordinator", "user", "list", *here],
        ["coordinator", "gateway", *here],
        ["pki", "status", *here],
        ["pki", "renew-server", *here],
        ["audit", "verify", "--coordinator", str(own)],
        ["audit", "verify", *here],
    ):
        run(monkeypatch, *arguments, "--json")
        document = json.loads(capsys.readouterr().out)
        assert document.get("error") in (None, "not-found"), (arguments, document)


def test_what_json_prints_is_one_document_also_with_warnings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "federation"
    password = tmp_path / "password"
    password.write_text("four unrelated words here\n")
    site, here = str(home / "sites" / "north"), ["--folder", str(home)]
    first = ["provision", *here, "--site", "north", "--recipe", "dermoscopy"]
    for arguments in (
        first,
        first,
        ["coordinator", "user", "add", "anna", *here, "--password-file", str(password)],
        ["coordinator", "user", "role", "anna", "--role", "operator", *here],
        ["coordinator", "user", "token", "anna", *here],
        ["coordinator", "user", "disable", "anna", *here],
        ["coordinator", "user", "enable", "anna", *here],
        ["coordinator", "user", "list", *here],
        ["coordinator", "campaign", "list", *here],
        ["coordinator", "campaign", "show", "none", *here],
        ["coordinator", "campaign", "pause", "none", *here],
        ["coordinator", "campaign", "export-mlflow", "none", "--tracking-uri", "x", *here],
        ["coordinator", "release", "list", *here],
        ["coordinator", "release", "show", "1", *here],
        ["coordinator", "release", "approve", "none", *here],
        ["coordinator", "trigger", "add", "monthly", "--recipe", "dermoscopy", *here],
        ["coordinator", "trigger", "list", *here],
        ["coordinator", "trigger", "remove", "monthly", *here],
        ["coordinator", "gateway", *here],
        ["pki", "status", *here],
        ["site", "budget", "--site", site],
        ["site", "outbox", "--site", site],
        ["site", "import", "--site", site, "--data", str(tmp_path / "none")],
        ["site", "withdraw", "--site", site, "--case", "none"],
        ["audit", "verify", "--site", site, "--coordinator", str(home)],
        ["audit", "export", "--site", site, "--output", str(tmp_path / "export.json")],
    ):
        code = run(monkeypatch, *arguments, "--json")
        said = capsys.readouterr().out
        document = json.loads(said)  # one document: anything beside it is no JSON
        assert isinstance(document, dict), arguments
        assert ("what" in document) is (code in (EXIT_FAILED, EXIT_USAGE)), (arguments, document)
        if "what" in document:
            assert document["action"] or document["meaning"], document
