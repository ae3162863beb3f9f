"""Connections that never finish: others are answered, and they are closed after a bound."""

from __future__ import annotations

import select
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from client.access.roles import Role
from client.api import body_limit, uploads
from client.api.connections import HALF_OPEN_AT_ONCE, HEADER_BYTES, BoundedProtocol
from client.composition import serving
from client.main import make_app
from tests.client.serving import FakeReleases, listening, picture, release, site_settings

HALF_OPEN = 300
CALLERS = 220
DRIPPING = 40
BOUND_SECONDS = 2.0


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, dict[str, str]]]:
    """A real server with accounts and short bounds, and two programs' keys."""
    monkeypatch.setenv("WARDROUND_SITE_ACCESS", "accounts")
    monkeypatch.setattr(BoundedProtocol, "header_seconds", BOUND_SECONDS)
    # Smaller than in the open, where a process of a test could not hold both ends of as many.
    monkeypatch.setattr(BoundedProtocol, "most_half_open", HALF_OPEN_AT_ONCE // 2)
    monkeypatch.setattr(serving, "CONNECTIONS_AT_ONCE", serving.CONNECTIONS_AT_ONCE // 2)
    monkeypatch.setattr(uploads, "GRACE_SECONDS", BOUND_SECONDS)
    monkeypatch.setattr(body_limit, "SECONDS", BOUND_SECONDS)
    settings = site_settings(tmp_path)
    app = make_app(settings, releases=FakeReleases(release(tmp_path, 1)))
    keys = app.state.services.access.keys
    made = {name: keys.add(name, [Role.clinician]) for name in ("script", "doctor")}
    with listening(settings, app) as address:
        yield address, made


def connect(url: str, data: bytes) -> socket.socket:
    opened = socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), 10)
    opened.sendall(data)
    return opened


def closed(sockets: list[socket.socket], seconds: float) -> int:
    """Return how many of them the server has closed, or answered, within a time."""
    deadline, left = time.monotonic() + seconds, set(sockets)
    while left and time.monotonic() < deadline:
        for ready in select.select(list(left), [], [], 0.1)[0]:
            left.discard(ready)
    return len(sockets) - len(left)


def upload_head(key: str, length: int = 50_000) -> bytes:
    return (
        "POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Bearer {key}\r\nContent-Length: {length}\r\n"
        "Content-Type: multipart/form-data; boundary=edge\r\n\r\n--edge\r\n"
    ).encode()


def test_two_hundred_callers_keep_their_connections(
    url: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each asks again on the connection that it has: none was closed to make room."""
    monkeypatch.setattr(BoundedProtocol, "most_half_open", HALF_OPEN_AT_ONCE)
    ask = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    callers = [connect(url[0], ask) for _ in range(CALLERS)]
    for step in ("answer", "ask", "answer"):  # in between, all of them wait
        for caller in callers:
            if step == "ask":
                caller.sendall(ask)
            else:  # 429 is an answer, too
                assert caller.recv(4096).startswith(b"HTTP/1.1 ")
    for caller in callers:
        caller.close()


def test_half_open_connections_stop_nobody_and_are_closed(
    url: tuple[str, dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    address, keys = url
    begun = time.monotonic()
    half = [
        connect(address, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: b") for _ in range(HALF_OPEN)
    ]
    small = [
        connect(
            address, b"POST /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 50\r\n\r\na"
        )
        for _ in range(DRIPPING)
    ]
    bodies = [connect(address, upload_head(keys["script"])) for _ in range(DRIPPING)]
    opened = time.monotonic() - begun
    slowest = 0.0
    key = {"authorization": f"Bearer {keys['doctor']}"}
    with httpx.Client(base_url=address, headers=key, timeout=10) as doctor:
        for seed in range(10):
            asked = time.monotonic()
            answer = doctor.post("/predict", files={"image": ("x.png", picture(seed))})
            slowest = max(slowest, time.monotonic() - asked)
            assert answer.status_code == 200, answer.text
    everyone = [*half, *small, *bodies]
    gone = closed(everyone, BOUND_SECONDS * 3)
    lasted = time.monotonic() - begun
    for one in everyone:
        one.close()
    with capsys.disabled():
        sys.stdout.write(
            f"\n{len(everyone)} connections that never finish, opened in {opened:.2f} s: 10 of 10 "
            f"predictions of another caller answered, the slowest in {slowest:.2f} s; "
            f"{gone} closed within {lasted:.1f} s (bound {BOUND_SECONDS:.0f} s)\n"
        )
    assert gone == len(everyone)
    assert slowest < 2.0


def test_headers_without_an_end_are_cut_off(url: tuple[str, dict[str, str]]) -> None:
    address, _ = url
    flood = connect(address, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n")
    sent = 0
    try:
        while sent < 50 * HEADER_BYTES:
            flood.sendall(b"X-%d: " % sent + b"a" * 4000 + b"\r\n")
            sent += 4000
            if select.select([flood], [], [], 0)[0]:
                break
    except OSError:
        pass
    assert sent < 50 * HEADER_BYTES
    flood.close()
    assert httpx.get(f"{address}/health/live").status_code == 200


def test_a_slow_but_steady_upload_is_read(url: tuple[str, dict[str, str]]) -> None:
    """A field with a poor line is not an attack: what comes at 64 KiB a second is let finish."""
    address, keys = url
    image = picture(1, size=(400, 400))
    form = (
        b'--edge\r\nContent-Disposition: form-data; name="image"; filename="x.png"\r\n\r\n'
        + image
        + b"\r\n--edge--\r\n"
    )

    def slowly() -> Iterator[bytes]:
        for begin in range(0, len(form), 32_768):
            yield form[begin : begin + 32_768]
            time.sleep(0.2)

    assert len(form) / 32_768 * 0.2 > BOUND_SECONDS
    headers = {
        "authorization": f"Bearer {keys['doctor']}",
        "content-type": "multipart/form-data; boundary=edge",
        "content-length": str(len(form)),
    }
    answer = httpx.post(f"{address}/predict", content=slowly(), headers=headers, timeout=30)
    assert answer.status_code == 200


def test_connections_may_be_used_again(url: tuple[str, dict[str, str]]) -> None:
    address, keys = url
    headers = {"authorization": f"Bearer {keys['doctor']}"}
    with httpx.Client(base_url=address, headers=headers) as client:
        for _ in range(3):
            assert client.get("/model").status_code == 200
            time.sleep(0.1)
    assert not [one for one in BoundedProtocol.__subclasses__()[-1].half_open if one._let_in()]
