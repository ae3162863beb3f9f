"""Requests made from the OpenAPI document by Schemathesis, against a real server."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException
from PIL import Image
from schemathesis.checks import CheckFunction, not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi import checks as conformance

from client.access.roles import Role
from client.main import make_app
from tests.client.serving import FakeReleases, listening, picture, release, site_settings

CHECKS: list[CheckFunction] = [
    not_a_server_error,
    conformance.status_code_conformance,
    conformance.content_type_conformance,
    conformance.response_headers_conformance,
    conformance.response_schema_conformance,
    conformance.ignored_auth,
]
"""What must hold of every answer. Left out are the checks that the document cannot decide: which
bytes are an image, and which case, version or class there is, stands in no schema."""

LIMITS = {"requests_per_minute": 10**9, "burst": 10**9, "requests_at_once": 10**6}
SECONDS = 30.0


@dataclass
class Tally:
    """What was asked and answered."""

    requests: int = 0
    operations: set[str] = field(default_factory=set)
    statuses: Counter[int] = field(default_factory=Counter)
    faults: dict[str, str] = field(default_factory=dict)

    @property
    def server_errors(self) -> int:
        """Answers with a status of 500 or above."""
        return sum(count for status, count in self.statuses.items() if status >= 500)

    def text(self) -> str:
        """Return the figures as one line, and each kind of fault once."""
        statuses = ", ".join(
            f"{status}: {count}" for status, count in sorted(self.statuses.items())
        )
        head = (
            f"{self.requests} requests to {len(self.operations)} operations: "
            f"{self.server_errors} with a status of 500 or above, {len(self.faults)} faults "
            f"({statuses})"
        )
        return "\n".join([head, *(f"{name}: {said}" for name, said in self.faults.items())])


@contextmanager
def fuzzed_site(folder: Path) -> Iterator[tuple[str, str]]:
    """Serve a site with a model and accounts; yield its URL and a key with every role."""
    site = site_settings(folder, access="accounts", accounts=LIMITS, maximum_upload_bytes=200_000)
    app = make_app(site, releases=FakeReleases(release(folder, 1, favours="mel")))
    key = app.state.services.access.keys.add("fuzzer", list(Role))
    with listening(site, app) as url:
        yield url, key


def fuzz(url: str, key: str, *, number: int, first_seed: int = 0) -> Tally:
    """Ask at least so many times, all operations, with good and with bad values."""
    schemathesis.openapi.format("binary", _images())
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    pairs = [(operation, mode) for operation in operations for mode in modes]
    tally, turn = Tally(), first_seed
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {key}"
        while pairs and tally.requests < number:
            left = number - tally.requests
            share = max(1, min(50, -(-left // len(pairs))))
            # What has no input to vary is asked once, and not again.
            pairs = [
                pair
                for pair in pairs
                if tally.requests >= number
                or _ask(tally, session, *pair, examples=share, turn=turn) >= share
            ]
            turn += 1
    return tally


def _ask(
    tally: Tally,
    session: requests.Session,
    operation: schemathesis.APIOperation,
    mode: schemathesis.GenerationMode,
    *,
    examples: int,
    turn: int,
) -> int:
    """Ask one operation, and return how often."""
    before = tally.requests

    @seed(turn)
    @settings(
        max_examples=examples,
        phases=[Phase.generate],
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        answer = case.call(session=session, timeout=SECONDS)
        tally.requests += 1
        tally.operations.add(operation.label)
        tally.statuses[answer.status_code] += 1
        try:
            case.validate_response(
                answer, checks=CHECKS, transport_kwargs={"session": session, "timeout": SECONDS}
            )
        except (Failure, FailureGroup) as fault:
            name = f"{operation.label} {answer.status_code}"
            tally.faults.setdefault(name, str(fault)[:1500])

    with suppress(HypothesisException):  # nothing can be made of this operation in this mode
        ask()
    return tally.requests - before


def _images() -> st.SearchStrategy[bytes]:
    """Return images that are read, ones that are not, and bytes."""
    good = [picture(n, format=kind) for n, kind in enumerate(("PNG", "JPEG", "TIFF", "BMP"))]
    grey = io.BytesIO()
    Image.new("L", (64, 64), 90).save(grey, "PNG")
    damaged = [image[: len(image) // 2] for image in good] + [good[0][:-4] + b"\0\0\0\0"]
    dicom = bytes(128) + b"DICM" + bytes(64)
    known = st.sampled_from([*good, grey.getvalue(), *damaged, dicom, b""])
    return st.one_of(known, known, st.binary(max_size=300))
