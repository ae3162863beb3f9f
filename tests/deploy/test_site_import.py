"""`wardround site import` as a person and as a script see it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from client.intake.summary import ImportSummary
from common.errors import ConfigurationError
from deploy.commands.site_import import import_command
from tests.client.stores import make_site, picture

app = typer.Typer()
app.command()(import_command)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for n in range(4):
        (folder / f"{n}.png").write_bytes(picture(n))
    rows = ["path,dx,hospital,fold", "0.png,nevus,a,train", "1.png,mel,a,test", "2.png,1,a,train"]
    rows += ["3.png,nv,b,train", "9.png,nv,a,train", "0.png,[red]odd[/],a,train"]
    (folder / "labels.csv").write_text("\n".join(rows))
    make_site(tmp_path / "site")
    return folder


def run(data: Path, *options: str) -> Result:
    arguments = ["--site", str(data.parent / "site"), "--data", str(data), *options]
    return CliRunner().invoke(app, arguments)


COLUMNS = (
    "--file-column=path", "--label-column=dx", "--site-column=hospital", "--split-column=fold",
    "--site-filter=a", "--label-alias=nevus=nv", "--class-order=akiec,bcc",
)  # fmt: skip


def test_a_script_reads_one_document(data: Path) -> None:
    result = run(data, *COLUMNS, "--json")
    assert result.exit_code == 0, result.output
    summary = ImportSummary.model_validate(json.loads(result.stdout))
    assert (summary.kept, summary.left_out, summary.refused_count) == (3, 1, 2)
    assert {line.label for line in summary.class_balance if line.train} == {"nv", "bcc"}


def test_a_person_reads_lines(data: Path) -> None:
    result = run(data, *COLUMNS, "--show-files")
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    assert "6 rows read: 3 kept" in text
    assert "1 x file-missing: The file is missing. row 6 (9.png)" in text
    assert "[red]odd[/]" in text
    assert "Always answering 'mel' is right in 100.0%" in text
    assert "Warning" in text


def test_nothing_stored_is_a_failure(data: Path) -> None:
    result = run(data, *COLUMNS[:4], "--site-filter=nowhere", "--json")
    assert result.exit_code == 2
    document = json.loads(result.stdout)
    assert {w["code"] for w in document["warnings"]} == {"site-unknown", "no-cases"}


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([], "the source has no row below its header"),
        (["9.png,mel", "0.png,odd"], "every row was refused (1 x file-missing, 1 x label-unknown)"),
    ],
)
def test_an_import_that_stored_nothing_says_why(rows: list[str], why: str, data: Path) -> None:
    (data / "labels.csv").write_text("\n".join(["file,label", *rows]))
    result = run(data)
    assert result.exit_code == 2
    assert why in " ".join(result.stderr.split())


def test_one_is_not_many(data: Path) -> None:
    (data / "labels.csv").write_text("file,label,patient_id,split\n0.png,mel,p,train")
    text = " ".join(run(data).stdout.split())
    assert "1 row read" in text
    assert "1 named patient." in text
    assert "1 patient may be trained on" in text


@pytest.mark.parametrize("options", [["--recipe=mammography"], ["--label-alias=nevus"]])
def test_wrong_calls_say_what_is_wrong(data: Path, options: list[str]) -> None:
    result = run(data, *COLUMNS, *options)
    assert isinstance(result.exception, ConfigurationError)
    assert result.exception.action
