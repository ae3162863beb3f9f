"""OpenTelemetry traces: campaign, round, exchange with a site, and the round at the site.

Off, and not even imported, unless the standard environment variables ask for it
(``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`` or
``OTEL_TRACES_EXPORTER``); ``OTEL_SDK_DISABLED=true`` turns it off in any case. A collector that
cannot be reached delays nothing by more than `FLUSH_SECONDS`, and fails nothing.

What a span says is fixed by the arguments of `traced`: campaign, round, site and codes. There is
no way to attach anything else, so no patient, file or error text can get into one.

The ids of a trace and of an exchange are digests of the campaign's id and of the plan's nonce,
which both sides know: a site's span finds its place below the coordinator's although nothing more
than the plan travels, and a campaign that goes on after a crash goes on in its trace.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

logger = logging.getLogger(__name__)

SpanName: TypeAlias = Literal["campaign", "round", "exchange", "site-round"]

FLUSH_SECONDS = 2.0
ENDPOINTS = (
    "OTEL_TRACES_EXPORTER",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
)


@dataclass(frozen=True)
class Place:
    """What a span is of; ``nonce`` names an exchange and is not exported."""

    campaign: str
    round: int | None = None
    site: str | None = None
    purpose: str | None = None
    nonce: str | None = None

    def attributes(self) -> dict[str, str | int]:
        """Return what the span says of it."""
        found = {
            "wardround.campaign": self.campaign,
            "wardround.round": self.round,
            "wardround.site": self.site,
            "wardround.purpose": self.purpose,
        }
        return {name: value for name, value in found.items() if value is not None}


class Traced:
    """An open span, or none."""

    def __init__(self, span: Span | None) -> None:
        self._span = span

    def ended(self, outcome: str, code: str | None = None) -> None:
        """Say how it ended, in the words that the registry uses."""
        if self._span is not None:
            self._span.set_attribute("wardround.outcome", outcome)
            if code is not None:
                self._span.set_attribute("wardround.code", code)


@dataclass
class _State:
    """The provider of this process; after a fork, a new one is made."""

    process: int = 0
    provider: TracerProvider | None = None


_state = _State()


def tracing_wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether the environment asks for traces."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if environment.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return False
    return any(environment.get(name, "").strip() for name in ENDPOINTS)


@contextmanager
def traced(name: SpanName, place: Place | None) -> Iterator[Traced]:
    """Open a span for the time of the block; it costs nothing where tracing is off.

    Without a place there is none: nothing is known that may be said.
    """
    provider = _provider()
    if provider is None or place is None:
        yield Traced(None)
        return
    from common.tracing_spans import open_span

    with open_span(provider, name, place) as (span, outermost):
        yield Traced(span)
    if outermost:
        _flush(provider)


def trace_exchange(place: Place, *, seconds: float, outcome: str, code: str | None) -> None:
    """Record what one request to one site came to, when that is known.

    Parameters
    ----------
    place : Place
        With the nonce of its plan.
    seconds : float
        How long it took, until now.
    outcome, code : str
        As in the registry.
    """
    provider = _provider()
    if provider is None:
        return
    from common.tracing_spans import past_span

    ended = time.time_ns()
    span = past_span(provider, "exchange", place, begun=ended - int(seconds * 1e9))
    Traced(span).ended(outcome, code)
    span.end(ended)


def derived(text: str, bits: Literal[64, 128]) -> int:
    """Return an id of a trace (128 bits) or of a span (64) that is the same for the same text."""
    digest = hashlib.sha256(f"wardround trace {text}".encode()).digest()
    return int.from_bytes(digest[: bits // 8], "big") or 1


def install(provider: TracerProvider | None) -> None:
    """Use this provider in this process, in place of the environment's; for tests."""
    _state.process, _state.provider = os.getpid(), provider


def _provider() -> TracerProvider | None:
    if _state.process != os.getpid():
        _state.process, _state.provider = os.getpid(), None
        if tracing_wanted():
            _state.provider = _made()
    return _state.provider


def _made() -> TracerProvider | None:
    try:
        from common.tracing_spans import make_provider
    except ModuleNotFoundError:
        logger.warning(
            "tracing-unavailable OTEL_ variables ask for traces, but they need "
            "`pip install 'wardround[tracing]'`"
        )
        return None
    return make_provider()


def _flush(provider: TracerProvider) -> None:
    # In a thread, as an exporter may wait for its collector longer than it is told to.
    thread = threading.Thread(target=provider.force_flush, daemon=True)
    thread.start()
    thread.join(FLUSH_SECONDS)
