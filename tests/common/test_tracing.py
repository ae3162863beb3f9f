"""Traces: off and not even loaded without the environment's word; on, they say codes alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from common import tracing
from common.tracing import Place, trace_exchange, traced, tracing_wanted
from common.tracing_spans import DerivedIds

NONCE = "ab" * 32


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    made, provider = InMemorySpanExporter(), TracerProvider(id_generator=DerivedIds())
    provider.add_span_processor(SimpleSpanProcessor(made))
    tracing.install(provider)
    yield made
    tracing.install(None)


def test_a_sites_round_stands_below_the_coordinators_exchange(
    exporter: InMemorySpanExporter,
) -> None:
    with traced("campaign", Place("c-1")), traced("round", Place("c-1", 2)):
        asked = Place("c-1", 2, "north", "train", NONCE)
        trace_exchange(asked, seconds=3.0, outcome="accepted", code=None)
    with traced("site-round", asked) as span:  # another process, which knows the plan alone
        span.ended("refused", "budget")
    exchange, number, campaign, at_site = exporter.get_finished_spans()
    assert [s.name for s in (exchange, number, campaign)] == ["exchange", "round", "campaign"]
    assert exchange.parent is not None
    assert number.parent is not None
    assert at_site.parent is not None
    assert exchange.parent.span_id == number.context.span_id
    assert number.parent.span_id == campaign.context.span_id
    assert at_site.parent.span_id == exchange.context.span_id
    assert len({s.context.trace_id for s in exporter.get_finished_spans()}) == 1
    assert exchange.end_time is not None
    assert exchange.start_time is not None
    assert 2.9e9 < exchange.end_time - exchange.start_time < 3.1e9
    assert dict(at_site.attributes or {}) == {
        "wardround.campaign": "c-1",
        "wardround.round": 2,
        "wardround.site": "north",
        "wardround.purpose": "train",
        "wardround.outcome": "refused",
        "wardround.code": "budget",
    }


def test_no_text_of_an_error_gets_into_a_span(exporter: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="patient"), traced("campaign", Place("c-1")):
        raise ValueError("patient 4711 of /srv/north")
    (span,) = exporter.get_finished_spans()
    assert "4711" not in span.to_json()
    assert span.events == ()


def test_a_campaign_that_goes_on_goes_on_in_its_trace(exporter: InMemorySpanExporter) -> None:
    for campaign in ("c-1", "c-1", "c-2"):
        with traced("campaign", Place(campaign)):
            pass
    first, again, other = (s.context.trace_id for s in exporter.get_finished_spans())
    assert first == again != other


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://localhost:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, False),
    ],
)
def test_the_standard_variables_decide(environment: dict[str, str], wanted: bool) -> None:
    assert tracing_wanted(environment) is wanted


CODE = """
import sys
from common.tracing import Place, trace_exchange, traced
with traced("campaign", Place("c-1")):
    trace_exchange(Place("c-1", 1, "north", "train", "ab"), seconds=1.0, outcome="late", code=None)
print("loaded" if any(name.startswith("opentelemetry") for name in sys.modules) else "absent")
"""


def run(**environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return subprocess.run(
        [sys.executable, "-c", CODE],
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


def test_off_it_is_not_loaded_at_all() -> None:
    assert run().stdout == "absent\n"


def test_asked_for_it_speaks_and_a_dead_collector_holds_nothing_up() -> None:
    said = run(OTEL_TRACES_EXPORTER="console").stdout
    assert '"wardround.outcome": "late"' in said
    assert said.endswith("loaded\n")
    began = time.monotonic()
    assert run(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9").stdout == "loaded\n"
    assert time.monotonic() - began < 60
