"""docs/metrics.md names every metric of the coordinator with its labels, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from server.api.metrics import CoordinatorMetrics
from server.api.services import CoordinatorServices
from server.registry.records import Contribution
from server.registry.registry import Registry
from server.triggers.rules import HandRule
from server.triggers.store import Trigger, TriggerPlan, TriggerStore
from tests.releases import RECIPE, Coordinator, approve, weights

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(wardround_\w+)` \| (\w+) \| (.*?) \|", re.M)


def documented() -> dict[str, set[str]]:
    _, _, coordinator = DOCUMENT.read_text("utf-8").partition("## The coordinator")
    return {
        name: set(re.findall(r"`(\w+)`", labels)) for name, _, labels in ROW.findall(coordinator)
    }


def live(coordinator: Coordinator, registry: Registry) -> dict[str, set[str]]:
    services = CoordinatorServices(coordinator.settings, coordinator.publisher, registry)
    metrics = CoordinatorMetrics(services)
    metrics.request("/health/live", 200)
    text = generate_latest(metrics.registry).decode()
    return {
        sample.name: set(sample.labels)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")  # when the counter began: the client library's own
    }


def test_the_document_is_the_endpoint(tmp_path: Path) -> None:
    coordinator = Coordinator.create(tmp_path / "coordinator")
    registry = Registry.open(coordinator.settings)
    approve(coordinator, registry, 1)
    candidate = registry.approved_candidates()[0]
    coordinator.publisher.publish(candidate.draft, weights(1))
    registry.record_release(coordinator.publisher.manifest(1))
    running = registry.campaigns()[0].id
    registry.moves.take(running)
    registry.start_round(running, 1, purpose="train", base_digest="0" * 64)
    registry.record_contribution(Contribution(running, 1, "north", 1, "accepted"))
    store = TriggerStore(registry._engine)
    now = registry.campaigns()[0].created_at
    trigger = Trigger(
        "by-hand", HandRule(), RECIPE.model_copy(update={"name": "free"}), TriggerPlan(),
        False, None, now, now, None,
    )  # fmt: skip
    store.add(trigger)
    assert store.begin(trigger, "slot", "By hand.", now=now)
    assert live(coordinator, registry) == documented()
    registry.close()
