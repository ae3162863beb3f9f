"""The part of tracing that needs OpenTelemetry; `common.tracing` imports it where it is on."""

from __future__ import annotations

import contextvars
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags

from common.tracing import Place, SpanName, derived

logger = logging.getLogger(__name__)

_wanted: contextvars.ContextVar[tuple[int, int | None] | None] = contextvars.ContextVar(
    "wanted", default=None
)
KINDS = {"exchange": SpanKind.CLIENT, "site-round": SpanKind.SERVER}


class DerivedIds(RandomIdGenerator):
    """Takes ids that were wanted, and random ones otherwise."""

    def generate_trace_id(self) -> int:
        """Return the wanted trace's id."""
        wanted = _wanted.get()
        return super().generate_trace_id() if wanted is None else wanted[0]

    def generate_span_id(self) -> int:
        """Return the wanted span's id."""
        wanted = _wanted.get()
        return super().generate_span_id() if wanted is None or wanted[1] is None else wanted[1]


def make_provider() -> TracerProvider:
    """Return a provider as the environment describes it, not installed globally."""
    named = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    resource = Resource.create({} if named else {"service.name": "wardround"})
    provider = TracerProvider(resource=resource, id_generator=DerivedIds(), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_exporter()))
    return provider


def _exporter() -> SpanExporter:
    kind = os.environ.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower()
    if kind == "console":
        return ConsoleSpanExporter()
    if kind not in ("otlp", ""):
        logger.warning("tracing-exporter-unknown OTEL_TRACES_EXPORTER is otlp, console or none")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


@contextmanager
def open_span(
    provider: TracerProvider, name: SpanName, place: Place
) -> Iterator[tuple[Span, bool]]:
    """Yield a span that is the current one, and whether it is the outermost of this process."""
    outermost = not trace.get_current_span().get_span_context().is_valid
    context = None
    if name == "site-round" and place.nonce is not None:
        context = trace.set_span_in_context(_asked(place, place.nonce))
    token = _wanted.set((derived(place.campaign, 128), None))
    try:
        span = provider.get_tracer("wardround").start_span(
            name,
            context=context,
            kind=KINDS.get(name, SpanKind.INTERNAL),
            attributes=place.attributes(),
        )
    finally:
        _wanted.reset(token)
    # An exception's text could quote anything: the span says that it failed, by a code, or not.
    with trace.use_span(
        span, end_on_exit=True, record_exception=False, set_status_on_exception=False
    ):
        yield span, outermost


def past_span(provider: TracerProvider, name: SpanName, place: Place, *, begun: int) -> Span:
    """Return a span that began at ``begun`` (nanoseconds since 1970), below the current one."""
    nonce = None if place.nonce is None else derived(place.nonce, 64)
    token = _wanted.set((derived(place.campaign, 128), nonce))
    try:
        return provider.get_tracer("wardround").start_span(
            name, kind=KINDS[name], attributes=place.attributes(), start_time=begun
        )
    finally:
        _wanted.reset(token)


def _asked(place: Place, nonce: str) -> Span:
    """Return the coordinator's exchange, as a site knows it."""
    return NonRecordingSpan(
        SpanContext(
            trace_id=derived(place.campaign, 128),
            span_id=derived(nonce, 64),
            is_remote=True,
            trace_flags=TraceFlags(TraceFlags.SAMPLED),
        )
    )
