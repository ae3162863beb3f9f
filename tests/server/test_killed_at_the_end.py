"""A campaign whose ServerApp is killed when it has its candidate leaves no more than any other."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.rounds.driver import campaign_folder
from tests.fakes import FakeSite, toy_recipe
from tests.server.campaigns import Coordinator
from tests.server.rounds.buffered import buffered
from tests.server.test_resume import Killed


def killed(*_: object) -> None:
    raise Killed


@pytest.mark.parametrize("kind", ["fedavg", "stops-early", "scaffold", "buffered"])
@pytest.mark.parametrize("damaged", [False, True])
def test_what_a_run_removes_at_its_end_goes_after_a_kill_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, damaged: bool
) -> None:
    made = Coordinator(tmp_path, [FakeSite("north"), FakeSite("south")])
    algorithm = "scaffold" if kind == "scaffold" else "fedavg"
    if kind == "buffered":
        campaign = buffered(made, rounds=3)
    else:
        campaign = made.create(
            toy_recipe(rounds=3, algorithm=algorithm),
            early_stopping_rounds=3 if kind == "stops-early" else 0,
        )
    folder = campaign_folder(made.settings, campaign.id)
    with monkeypatch.context() as patch:
        patch.setattr("server.candidates.note_candidate", killed)
        with pytest.raises(Killed):
            made.run(campaign)
    names = {path.name for path in folder.iterdir()}
    assert len([name for name in names if name.endswith(".safetensors")]) == 2
    assert ("control-variates" in names) == (kind == "scaffold")
    assert ("turns.json" in names) == (kind == "buffered")
    if damaged:
        (folder / "turns.json").write_bytes(b"{")
    candidate = made.run(campaign)
    assert made.registry.campaign(campaign.id).state == "finished"
    assert {path.name for path in folder.iterdir()} == {"driver.lock"}
    kept = {path.stem for path in made.settings.models.iterdir()}
    assert kept == {candidate.model_digest, campaign.initial_digest}
