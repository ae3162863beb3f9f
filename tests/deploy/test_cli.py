"""`wardround` itself: what a script reads when its call is wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from deploy.cli import main
from deploy.console import EXIT_FAILED, EXIT_USAGE


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
