"""`wardround coordinator release report` on the registry of a finished campaign."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from common.errors import ConfigurationError, NotFound
from deploy.commands.report import report
from tests.deploy.typer_app import single_command
from tests.server.reports.examples import finished, released

APP = single_command(report)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("federation")
    coordinator, candidate = finished(made)
    released(coordinator, candidate)
    return made


def test_both_files_are_written_and_named(folder: Path, tmp_path: Path) -> None:
    arguments = ["1", "--folder", str(folder), "--out", str(tmp_path / "new"), "--json"]
    answer = CliRunner().invoke(APP, arguments, catch_exceptions=False)
    told = json.loads(answer.stdout)
    assert told["version"] == 1
    html, pdf = (Path(name).read_bytes() for name in told["files"])
    assert html.startswith(b"<!doctype html>")
    assert pdf.startswith(b"%PDF")


def test_one_format_of_a_candidate_is_written(folder: Path, tmp_path: Path) -> None:
    arguments = ["1", "--folder", str(folder), "--out", str(tmp_path), "--json", "--format", "pdf"]
    campaign = json.loads(CliRunner().invoke(APP, arguments).stdout)["campaign"]
    arguments[0:1] = ["--candidate", campaign]
    assert CliRunner().invoke(APP, arguments, catch_exceptions=False).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["report.pdf"]


@pytest.mark.parametrize(("asked", "error"), [([], ConfigurationError), (["7"], NotFound)])
def test_a_wrong_call_is_refused(
    folder: Path, asked: list[str], error: type[Exception], tmp_path: Path
) -> None:
    with pytest.raises(error):
        CliRunner().invoke(
            APP,
            [*asked, "--folder", str(folder), "--out", str(tmp_path)],
            catch_exceptions=False,
        )
