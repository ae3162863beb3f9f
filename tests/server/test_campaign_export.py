"""A campaign in MLflow, read back; twice the same; nothing that the registry does not hold."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from common.errors import ConfigurationError, NotFound, StoreError
from server.campaign_export import CAMPAIGN_TAG, export_campaign
from server.registry.records import Contribution
from server.registry.registry import Registry
from tests.releases import Coordinator
from tests.server.test_api_coordinator import running_campaign

mlflow = pytest.importorskip("mlflow")


@pytest.fixture
def coordinator(tmp_path: Path) -> Coordinator:
    return Coordinator.create(tmp_path / "coordinator")


def test_a_campaign_is_read_back_and_exported_twice_is_one_run(
    coordinator: Coordinator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    registry = Registry.open(coordinator.settings)
    for number, name in enumerate(("north", "south")):
        registry.register_site(name, node_id=number + 1, public_key="key")
    campaign = running_campaign(coordinator, registry)
    where = (tmp_path / "mlruns").as_uri()
    first = export_campaign(registry, campaign, tracking_uri=where)
    again = export_campaign(registry, campaign, tracking_uri=where)
    assert first == again
    client = mlflow.MlflowClient(tracking_uri=where)
    experiment = client.get_experiment_by_name(first.experiment)
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.tags[CAMPAIGN_TAG] == campaign
    assert run.data.tags["wardround.candidate_state"] == "waiting"
    assert run.info.status == "RUNNING"
    assert run.data.params["rounds"] == "3"
    assert run.data.params["epsilon"] == "8.0"
    history = client.get_metric_history(run.info.run_id, "macro_auroc")
    assert [(m.step, m.value) for m in history] == [(1, 0.8)]
    assert run.data.metrics["sites_accepted"] == 1
    assert run.data.metrics["sites_late"] == 1
    assert run.data.metrics["site/north/epsilon_campaign"] == 1.5
    assert "site/south/epsilon_campaign" not in run.data.metrics
    names = {found.path for found in client.list_artifacts(run.info.run_id)}
    assert {"campaign.json", "candidate.json"} <= names
    text = Path(client.download_artifacts(run.info.run_id, "campaign.json", str(tmp_path)))
    assert json.loads(text.read_text())["campaign"]["id"] == campaign
    registry.close()


def test_a_round_that_is_not_over_is_written_when_it_is(
    coordinator: Coordinator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step of a metric is written once: what is written early is wrong for ever."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    registry = Registry.open(coordinator.settings)
    campaign = running_campaign(coordinator, registry)
    where = (tmp_path / "mlruns").as_uri()
    client = mlflow.MlflowClient(tracking_uri=where)

    def told() -> dict[int, float]:
        made = export_campaign(registry, campaign, tracking_uri=where)
        history = client.get_metric_history(made.run, "site/north/seconds")
        return {m.step: m.value for m in history}

    registry.start_round(campaign, 2, purpose="train", base_digest="1" * 64)
    late = Contribution(campaign, 2, "north", 1, "late", code="deadline", seconds=9.0)
    registry.record_contribution(late)
    assert told() == {1: 3.0}, "the round is running"
    registry.end_round(campaign, 2, state="failed")
    registry.fail_campaign(campaign, "quorum")
    assert told() == {1: 3.0}, "it is asked for again, where the campaign is resumed"
    registry.moves.resume(campaign)
    registry.start_campaign(campaign)
    registry.start_round(campaign, 2, purpose="train", base_digest="1" * 64)
    again = Contribution(campaign, 2, "north", 2, "accepted", seconds=4.0)
    registry.record_contribution(again)
    registry.end_round(campaign, 2)
    assert told() == {1: 3.0, 2: 4.0}
    registry.start_round(campaign, 3, purpose="train", base_digest="2" * 64)
    registry.record_contribution(Contribution(campaign, 3, "north", 1, "failed", seconds=1.0))
    registry.end_round(campaign, 3, state="failed")
    registry.moves.cancel(campaign)
    assert told() == {1: 3.0, 2: 4.0, 3: 1.0}, "nothing comes after it"
    registry.close()


def test_what_cannot_be_done_is_said(
    coordinator: Coordinator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry.open(coordinator.settings)
    with pytest.raises(NotFound):
        export_campaign(registry, "none", tracking_uri=str(tmp_path / "mlruns"))
    campaign = running_campaign(coordinator, registry)
    (tmp_path / "file").touch()
    with pytest.raises(StoreError) as failed:
        export_campaign(registry, campaign, tracking_uri=(tmp_path / "file" / "x").as_uri())
    assert failed.value.code == "mlflow"
    for name in [n for n in sys.modules if n.split(".")[0] == "mlflow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mlflow", None)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError) as missing:
        export_campaign(registry, campaign, tracking_uri=str(tmp_path / "mlruns"))
    assert missing.value.code == "mlflow-missing"
    registry.close()
