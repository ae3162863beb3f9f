"""`wardround demo`: what is wrong with a call is said before anything is written or started."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress

from deploy.cli import main
from deploy.commands import demo as command
from deploy.demo import journey
from deploy.demo.stages import Stages
from tests.client.stores import picture


@pytest.fixture(autouse=True)
def federations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders in which a federation would have been made; none is started here."""
    made: list[Path] = []

    class Stopped:
        def __init__(self, folder: Path, **_: Any) -> None:
            made.append(folder)
            raise KeyboardInterrupt

    monkeypatch.setattr(journey, "LocalFederation", Stopped)
    monkeypatch.chdir(tmp_path)
    return made


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, dict[str, str]]:
    monkeypatch.setattr(sys, "argv", ["wardround", "demo", *arguments, "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().out
    return int(ended.value.code or 0), json.loads(said) if said else {}


def everything(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b""
        for p in folder.rglob("*")
    }


def images(folder: Path, header: str = "file,label,patient_id,site", *, label: str = "nv") -> Path:
    folder.mkdir()
    for n in range(4):
        (folder / f"{n}.png").write_bytes(picture(n))
    rows = [f"{n}.png,{label},p{n},{'ab'[n % 2]}" for n in range(4)]
    wide = header.count(",") + 1
    rows = [",".join(row.split(",")[:wide]) for row in rows]
    (folder / "labels.csv").write_text("\n".join([header, *rows]))
    return folder


def test_a_folder_that_holds_anything_is_refused_untouched(
    tmp_path: Path,
    federations: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    old = tmp_path / "old"
    (old / "federation" / "sites" / "north").mkdir(parents=True)
    (old / "federation" / "sites" / "north" / "site.toml").write_text("name = 'north'\n")
    (tmp_path / "file").touch()
    before = everything(tmp_path)
    for name in ("old", "file"):
        code, document = run(monkeypatch, capsys, "--folder", str(tmp_path / name))
        assert (code, document["error"]) == (2, "folder-not-new")
    assert everything(tmp_path) == before
    assert federations == []


def test_the_default_folder_is_never_one_that_is_there(
    tmp_path: Path,
    federations: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Noon(command.datetime):  # type: ignore[misc, name-defined]
        @classmethod
        def now(cls, _zone: object = None) -> Noon:
            return cls(2026, 1, 1, 12)

    monkeypatch.setattr(command, "datetime", Noon)
    (tmp_path / "runs" / "demo-20260101T120000").mkdir(parents=True)
    code, document = run(monkeypatch, capsys)
    assert (code, document["error"]) == (2, "folder-not-new")
    assert federations == []


def test_an_empty_folder_is_taken_and_an_interrupted_demo_ends_with_130(
    tmp_path: Path,
    federations: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr("deploy.demo.hospitals.PHANTOM_PATIENTS", 4)
    monkeypatch.setattr("deploy.demo.hospitals.PHANTOM_NEWCOMERS", 1)
    monkeypatch.setattr(sys, "argv", ["wardround", "demo", "--folder", str(tmp_path / "empty")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert federations == [tmp_path / "empty" / "federation"]
    said = capsys.readouterr().err
    assert said.count("Interrupted") == 1
    assert said.endswith("Interrupted; everything is stopped.\n")
    assert "drawing phantoms" in said


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--recipe", "none"], "recipe"),
        (["--model", "nosuchnet"], "model-unknown"),
        (["--model", "vit_tiny", "--image-size", "50"], "model-build"),
        (["--data", "nosuch"], "data-missing"),
        (["--data", "good", "--recipe", "dermoscopy", "--model", "nosuchnet"], "model-unknown"),
        (["--data", "good", "--recipe", "dermoscopy", "--patient-column", "no"], "labels-column"),
        (["--data", "good", "--recipe", "dermoscopy", "--split-column", "no"], "labels-column"),
        (["--data", "good", "--recipe", "mammography"], "no-cases"),
        (["--data", "bare"], "labels-column"),
        (["--data", "one", "--recipe", "dermoscopy"], "one-hospital"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_written(
    arguments: list[str],
    error: str,
    tmp_path: Path,
    federations: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images(tmp_path / "good")
    images(tmp_path / "bare", "file")
    one = images(tmp_path / "one") / "labels.csv"
    one.write_text(one.read_text().replace(",b", ",a"))
    before = everything(tmp_path)
    code, document = run(monkeypatch, capsys, *arguments)
    assert (code, document["error"]) == (2, error)
    assert "--sites-by" not in document["action"], "no option of this command"
    assert everything(tmp_path) == before
    assert federations == []


def test_without_a_terminal_every_stage_and_round_is_a_line() -> None:
    said = io.StringIO()
    with Progress(disable=True) as display:
        stages = Stages(display, Console(file=said, width=40))
        with stages.step("starting processes, importing cases"):
            pass
        campaign = stages.begin("campaign 1", total=2, unit="round")
        for done in (0, 1, 1, 2):
            stages.advance(campaign, done, f"macro AUROC 0.{done}00" if done else "")
        stages.end(campaign)
    lines = [line.split(" s  ")[1] for line in said.getvalue().splitlines()]
    assert lines == [
        "starting processes, importing cases …",
        "campaign 1 …",
        "campaign 1: round 1 of 2 done, macro AUROC 0.100",
        "campaign 1: round 2 of 2 done, macro AUROC 0.200",
    ]


def test_on_a_terminal_the_bars_are_enough() -> None:
    said = io.StringIO()
    with Progress(console=Console(file=io.StringIO())) as display:
        stages = Stages(display, Console(file=said))
        stages.end(stages.begin("campaign 1", total=2, unit="round"))
    assert said.getvalue() == ""
