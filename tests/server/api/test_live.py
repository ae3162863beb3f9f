"""The event stream on a real server: who hears what, how soon, how many, and how it ends."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from server.api import live
from server.api.authentication import SESSION_COOKIE
from tests.server.api.serving import PATIENCE, Service, serving
from tests.server.test_api_coordinator import running_campaign

SOON = 10.0  # twice a second in the open; many times that beside other tests on two cores


@dataclass
class Stream:
    connection: http.client.HTTPSConnection
    answer: http.client.HTTPResponse

    def line(self) -> str:
        """Return the next line that is not empty, as the server sends it; "" at its end."""
        while True:
            found = self.answer.readline().decode()
            if found.strip() or not found:
                return found.strip()

    def wait_for(self, text: str) -> float:
        began = time.monotonic()
        while (found := self.line()) != text:
            assert found, f"the stream ended before {text!r}"
            assert time.monotonic() - began < PATIENCE
        return time.monotonic() - began

    def close(self) -> None:
        self.answer.close()
        self.connection.close()


def listen(
    service: Service, secret: str | None, *, seen: str = "", heard: str | None = None
) -> Stream:
    connection = service.connect()
    headers = {} if secret is None else {"Cookie": f"{SESSION_COOKIE}={secret}"}
    if heard is not None:
        headers["Last-Event-ID"] = heard
    connection.request("GET", f"/page/live?seen={seen}", headers=headers)
    return Stream(connection, connection.getresponse())


def drawn_from(service: Service, secret: str) -> str:
    """Return the state that the page of campaigns says that it was drawn from."""
    connection = service.connect()
    headers = {"Cookie": f"{SESSION_COOKIE}={secret}"}
    connection.request("GET", "/page/campaigns", headers=headers)
    text = connection.getresponse().read().decode()
    connection.close()
    (state,) = re.findall(r'data-drawn-from="([0-9a-f]{64})"', text)
    return state


def turning(monkeypatch: pytest.MonkeyPatch, *, every: float, check_every: int) -> None:
    """Turn faster, but live as long: a stream of 300 quick turns would end under the test."""
    monkeypatch.setattr(live, "MOST_TURNS", int(300 / every))
    monkeypatch.setattr(live, "EVERY_SECONDS", every)
    monkeypatch.setattr(live, "CHECK_SESSION_TURNS", check_every)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with serving(tmp_path / "coordinator") as made:
        yield made


def test_an_open_page_hears_soon_that_a_campaign_moved(service: Service) -> None:
    streams = [listen(service, service.session()) for _ in range(3)]
    for stream in streams:
        assert stream.answer.status == 200
        assert stream.answer.headers["content-type"].startswith("text/event-stream")
        assert stream.line() == "retry: 2000"
    running_campaign(service.coordinator, service.services.registry)
    for stream in streams:
        assert stream.wait_for("event: changed") < SOON
        assert stream.line() == "data: state"  # nothing of what changed
    for stream in streams:
        stream.close()


def test_what_changes_between_a_page_and_its_stream_is_told_at_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "EVERY_SECONDS", 0.0)  # each reads the state anew
    monkeypatch.setattr(live, "MOST_TURNS", 1)  # no later turn can tell it
    secret = service.session()
    seen = drawn_from(service, secret)
    running_campaign(service.coordinator, service.services.registry)
    stream = listen(service, secret, seen=seen)
    stream.wait_for("event: changed")
    stream.close()


def test_what_changes_between_two_streams_of_a_page_is_told_at_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "EVERY_SECONDS", 0.0)  # each reads the state anew
    monkeypatch.setattr(live, "MOST_TURNS", 1)  # no later turn can tell it
    secret = service.session()
    seen = drawn_from(service, secret)
    first = listen(service, secret, seen=seen)
    assert first.line() == "retry: 2000"
    heard = first.line().removeprefix("id: ")
    assert heard == seen
    first.close()
    running_campaign(service.coordinator, service.services.registry)
    again = listen(service, secret, seen=drawn_from(service, secret), heard=heard)
    again.wait_for("event: changed")
    again.close()


def test_a_page_that_is_up_to_date_is_left_alone(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    turning(monkeypatch, every=0.05, check_every=2)
    secret = service.session()
    stream = listen(service, secret, seen=drawn_from(service, secret))
    assert stream.line() == "retry: 2000"
    assert stream.line().startswith("id: ")
    assert stream.line() == ": still here"
    stream.close()


def test_without_a_session_nothing_is_told(service: Service) -> None:
    spent = service.session(life=0.1)
    time.sleep(0.2)
    for secret in (None, "guessed", spent):
        stream = listen(service, secret)
        assert stream.answer.status == 303
        assert stream.answer.headers["location"].startswith("/sign-in")
        assert b"event" not in stream.answer.read()
        stream.close()


@pytest.mark.parametrize("how", ["signed out", "disabled", "expired"])
def test_a_stream_ends_with_its_session(
    service: Service, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    turning(monkeypatch, every=0.05, check_every=2)
    secret = service.session(life=4.0 if how == "expired" else 3600)
    stream = listen(service, secret)
    stream.wait_for(": still here")
    accounts = service.services.registry.accounts
    if how == "signed out":
        accounts.close_session(secret)
    elif how == "disabled":
        accounts.disable("vera", by="console-test")
    stream.wait_for("data: signed-out")
    running_campaign(service.coordinator, service.services.registry)
    assert stream.line() == ""
    stream.close()


def test_connections_are_counted_and_given_back(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MOST_STREAMS", 4)
    turning(monkeypatch, every=0.05, check_every=2)
    secret = service.session()
    streams = [listen(service, secret) for _ in range(4)]
    for stream in streams:
        stream.line()
    over = listen(service, secret)
    assert over.answer.status == 429
    over.close()
    for stream in streams:
        stream.close()
    began = time.monotonic()
    while (again := listen(service, secret)).answer.status == 429:
        again.close()
        assert time.monotonic() - began < PATIENCE, "closed streams still count"
        time.sleep(0.05)
    assert again.answer.status == 200
    again.close()


def test_many_that_begin_at_once_do_not_slip_past_the_bound(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MOST_STREAMS", 2)
    secret = service.session()
    found: list[Stream] = []
    threads = [
        threading.Thread(target=lambda: found.append(listen(service, secret))) for _ in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(stream.answer.status for stream in found).count(200) == 2
    for stream in found:
        stream.close()


def test_a_reader_that_never_reads_blocks_nobody(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    turning(monkeypatch, every=0.01, check_every=1)
    secret = service.session()
    raw = socket.create_connection(("localhost", service.port))
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    context = ssl.create_default_context(
        cadata=service.coordinator.authority.certificate.decode("ascii")
    )
    with context.wrap_socket(raw, server_hostname="localhost") as slow:
        head = f"GET /page/live HTTP/1.1\r\nHost: localhost\r\nCookie: {SESSION_COOKIE}={secret}"
        slow.sendall(f"{head}\r\n\r\n".encode())
        time.sleep(0.3)
        quick = listen(service, secret)
        assert quick.line() == "retry: 2000"  # it knows the state before the campaign
        running_campaign(service.coordinator, service.services.registry)
        assert quick.wait_for("event: changed") < SOON
        connection = service.connect()
        connection.request("GET", "/health/live")
        assert connection.getresponse().status == 200
        connection.close()
        quick.close()


def test_the_end_of_the_service_ends_the_streams_well_before_the_grace(service: Service) -> None:
    streams = [listen(service, service.session()) for _ in range(5)]
    for stream in streams:
        stream.line()
        assert stream.line().startswith("id: ")
    last: list[str] = []

    def read(stream: Stream) -> None:  # as browsers do: TLS ends when both sides say so
        with contextlib.suppress(OSError, http.client.HTTPException):
            last.append(stream.line())
        stream.close()

    readers = [threading.Thread(target=read, args=(stream,)) for stream in streams]
    for reader in readers:
        reader.start()
    assert service.end() < 5.0
    for reader in readers:
        reader.join()
    assert set(last) <= {""}
