"""Nothing that a caller sends comes back or is logged: it may name a patient."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from client.access.roles import Role
from tests.client.access.conftest import OWN, GuardedSite
from tests.client.access.test_every_route import address, bearer, guarded_routes
from tests.client.serving import RECIPE, picture

PLANTED = "PlantedDoe"
FILE = ("image", (f"{PLANTED}.png", picture(), f"image/{PLANTED}"))
INFER = f"/v2/models/{RECIPE.name}/infer"
TENSOR = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [PLANTED]}


def bodies() -> Iterator[dict[str, Any]]:
    """Options of requests that have the word everywhere but in a place where it belongs."""
    yield {"json": {PLANTED: PLANTED}}
    yield {"json": {"verdict": PLANTED, "label": [PLANTED], "seen": {PLANTED: 1}, "reason": 7}}
    yield {"json": {"inputs": [{**TENSOR, PLANTED: 1}], "parameters": {PLANTED: PLANTED}}}
    yield {"json": {"inputs": [TENSOR], "outputs": [{"name": PLANTED}]}}
    yield {"content": f'{{"{PLANTED}"'.encode(), "headers": {"content-type": "application/json"}}
    yield {"content": PLANTED.encode(), "headers": {"content-type": f"text/{PLANTED}"}}
    yield {"files": [FILE], "data": {PLANTED: PLANTED}}
    yield {"files": [FILE], "data": {"label": PLANTED, "age": PLANTED, "sex": PLANTED}}
    yield {"files": [FILE], "data": {"method": PLANTED, "class": PLANTED}}
    yield {"files": [("image", (PLANTED, PLANTED.encode()))]}
    yield {"files": [(PLANTED, (PLANTED, PLANTED.encode()))], "data": {"patient_id": PLANTED * 99}}
    kind = f"multipart/form-data; boundary=x; charset={PLANTED}"
    part = f'--x\r\ncontent-disposition: form-data; name="{PLANTED}"\r\n\r\n{PLANTED}\r\n--x--\r\n'
    yield {"content": part.encode(), "headers": {"content-type": kind}}


STRAY = {
    "x-request-id": PLANTED,
    "x-forwarded-for": PLANTED,
    "traceparent": PLANTED,
    "accept": f"{PLANTED}/json",
    "user-agent": PLANTED,
    "referer": f"http://127.0.0.1/{PLANTED}",
    "cookie": f"{PLANTED}={PLANTED}",
    "accept-language": PLANTED,
}


@pytest.fixture
def eager(guarded: GuardedSite, caplog: pytest.LogCaptureFixture) -> GuardedSite:
    caplog.set_level(logging.DEBUG)
    limits = guarded.site.services.access.limits
    assert limits is not None
    limits._burst = 10_000.0
    return guarded


def ours(caplog: pytest.LogCaptureFixture) -> str:
    """Return what was logged, the test's own HTTP client left out."""
    found = (r for r in caplog.records if not r.name.startswith(("httpx", "httpcore")))
    return "\n".join(f"{r.name} {r.getMessage()} {r.exc_text or ''}" for r in found)


def test_no_route_says_again_what_it_was_sent(
    eager: GuardedSite, caplog: pytest.LogCaptureFixture
) -> None:
    everybody = bearer(eager.site.services.access.keys.add("all", list(Role)))
    asked = 0
    for method, path in guarded_routes(eager.site.app):
        where = address(path)
        places = {where, where.replace("0" * 32, PLANTED).replace("a-flag", PLANTED)}
        for options in [{}] if method == "GET" else bodies():
            params = {PLANTED: PLANTED, "state": PLANTED}
            for place in places:
                headers = STRAY | options.get("headers", {}) | everybody
                answer = eager.site.call(
                    method,
                    place,
                    **{
                        **options,
                        "headers": headers,
                        "params": params,
                    },
                )
                asked += 1
                told = f"{answer.text}{json.dumps(dict(answer.headers))}"
                assert PLANTED not in told, (method, place, answer.status_code)
                assert answer.status_code < 500, (method, place)
    assert asked > 200
    assert PLANTED not in ours(caplog)
    metrics = eager.call("GET", "/metrics", Role.it).text
    assert PLANTED not in metrics


def test_neither_does_the_way_in(eager: GuardedSite, caplog: pytest.LogCaptureFixture) -> None:
    form = {"name": PLANTED, "password": PLANTED, PLANTED: PLANTED, "next": f"//{PLANTED}"}
    answers = [
        eager.site.call("POST", "/sign-in", data=form, headers=OWN),
        eager.site.call("POST", "/sign-in", data=form | {"name": PLANTED * 10}, headers=OWN),
        eager.site.call("GET", f"/{PLANTED}"),
        eager.site.call(PLANTED.upper(), "/model"),
        eager.site.call("GET", f"/sign-in/callback?code={PLANTED}&state={PLANTED}&error={PLANTED}"),
        eager.site.call("GET", "/model", headers={"authorization": f"Bearer {PLANTED}"}),
        eager.site.call("GET", "/model", headers={"host": PLANTED}),
        eager.site.call("GET", f"/static/{PLANTED}"),
        eager.site.call("GET", f"/static/..%2f..%2f{PLANTED}"),
    ]
    for answer in answers:
        assert 400 <= answer.status_code < 500, answer.text
        assert PLANTED not in f"{answer.text}{json.dumps(dict(answer.headers))}"
    assert PLANTED not in ours(caplog)
    assert PLANTED not in eager.call("GET", "/metrics", Role.it).text
