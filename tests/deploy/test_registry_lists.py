"""Lists in an ordinary terminal: everything is read whole, whatever it is called."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from deploy.commands.registry_lists import campaigns_table, releases_table
from server.api.campaigns import CampaignSummary
from server.api.releases import ReleaseDocument

ID, TASK, NETWORK = "20260101-000000-abcdef", "dermoscopy-isic2019", "vit_tiny_patch16_224"
LONG = "a-task-of-the-longest-name-" + "x" * 36


def drawn(table: Table) -> str:
    stream = io.StringIO()
    Console(file=stream, width=80).print(table)
    assert max(map(len, stream.getvalue().splitlines())) <= 80
    return stream.getvalue()


@pytest.mark.parametrize("task", [TASK, LONG])
@pytest.mark.parametrize("kind", ["training", "preflight"])
def test_no_campaign_is_cut_off(task: str, kind: str) -> None:
    campaign = CampaignSummary.model_construct(
        id=ID,
        kind=kind,
        task=task,
        architecture=NETWORK,
        state="interrupted",
        rounds=100_000,
        epsilon=8.0,
        base_release=12,
    )
    text = drawn(campaigns_table([campaign]))
    assert "…" not in text
    for word in (ID, NETWORK, "interrupted", "100000", "8.000", "v12", "epsilon", "network"):
        assert word in text
    assert task != TASK or TASK in text


@pytest.mark.parametrize("task", [TASK, LONG])
def test_no_release_is_cut_off(task: str) -> None:
    release = ReleaseDocument.model_construct(
        version=12,
        task=task,
        architecture=NETWORK,
        campaign=ID,
        sites=("north", "south"),
        macro_auroc=0.8124,
        majority_baseline=None,
    )
    text = drawn(releases_table([release]))
    assert "…" not in text
    for word in (ID, NETWORK, "v12", "0.812", "majority", "AUROC"):
        assert word in text
