"""A campaign's trace: campaign, rounds, an exchange a site with its outcome, and nothing else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.common.test_tracing import exporter  # noqa: F401 - pytest finds fixtures by name
from tests.fakes import FakeSite, refusing
from tests.server.campaigns import Coordinator


def test_a_campaign_is_one_trace_with_every_exchange_in_its_round(
    tmp_path: Path,
    exporter,  # noqa: F811
) -> None:
    sites = [FakeSite("north"), FakeSite("south"), FakeSite("west", behave=refusing)]
    coordinator = Coordinator(tmp_path, sites)
    campaign = coordinator.create()
    coordinator.run(campaign)
    spans = exporter.get_finished_spans()
    assert Counter(span.name for span in spans)["campaign"] == 1
    assert {span.attributes["wardround.campaign"] for span in spans} == {campaign.id}
    assert len({span.context.trace_id for span in spans}) == 1
    rounds = {span.context.span_id: span for span in spans if span.name == "round"}
    assert len(rounds) == 3
    trained = [
        span
        for span in spans
        if span.name == "exchange" and span.attributes["wardround.purpose"] == "train"
    ]
    told = [c for c in coordinator.registry.contributions(campaign.id) if c.round <= 3]
    assert Counter(
        (span.attributes["wardround.site"], span.attributes["wardround.outcome"])
        for span in trained
    ) == Counter((c.site, c.outcome) for c in told)
    for span in trained:
        above = rounds[span.parent.span_id]
        assert above.attributes["wardround.round"] == span.attributes["wardround.round"]
    said = {name for span in spans for name in span.attributes}
    assert said <= {
        f"wardround.{name}" for name in ("campaign", "round", "site", "purpose", "outcome", "code")
    }
