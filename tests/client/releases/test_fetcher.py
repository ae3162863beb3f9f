"""The fetcher against servers that redirect, dawdle, compress, break off or say no."""

from __future__ import annotations

import gzip
import http.server
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    SlowRetrievalError,
)

from client.connection import Connection
from client.releases import fetcher as release_fetcher
from client.releases.fetcher import CoordinatorFetcher, is_untrusted
from common.errors import ConfigurationError
from deploy.certificates import make_authority, make_server_certificate


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stop: ClassVar[threading.Event]

    def do_GET(self) -> None:
        getattr(self, self.path.strip("/"))()

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def plain(self) -> None:
        self.answer(200, b"x" * 1000)

    def redirect(self) -> None:
        self.answer(302, b"", Location="/plain")

    def forbidden(self) -> None:
        self.answer(403, b"no")

    def compressed(self) -> None:
        self.answer(200, gzip.compress(b"0" * 10_000_000), Content_Encoding="gzip")

    def partial(self) -> None:
        self.answer(206, b"x")

    def broken(self) -> None:
        self.answer(200, b"x" * 10, Content_Length="1000")
        self.close_connection = True

    def endless(self) -> None:
        self.answer(200, b"x", Content_Length="100000")
        while not self.stop.wait(0.02):
            self.wfile.write(b"x")
            self.wfile.flush()

    def silent(self) -> None:
        self.stop.wait(20)

    def log_message(self, format: str, *args: object) -> None:
        pass


@dataclass(frozen=True)
class Served:
    url: str
    ca: Path
    folder: Path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    authority = make_authority()
    certificate = make_server_certificate(authority, hosts=["127.0.0.1"])
    for name, data in (("ca", authority.certificate), ("crt", certificate.certificate), ("key", certificate.key)):  # fmt: skip  # noqa: E501
        (tmp_path / name).write_bytes(data)
    Handler.stop = threading.Event()
    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    listener.socket = context.wrap_socket(listener.socket, server_side=True)
    listener.daemon_threads = True
    listener.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield Served(f"https://127.0.0.1:{listener.server_port}", tmp_path / "ca", tmp_path)
    finally:
        Handler.stop.set()
        listener.shutdown()
        listener.server_close()


@pytest.fixture
def fetcher(server: Served) -> Iterator[CoordinatorFetcher]:
    made = CoordinatorFetcher(server.url, connection=Connection(server.ca), folder=server.folder)
    yield made
    made.close()


def test_bytes_arrive(fetcher: CoordinatorFetcher, server: Served) -> None:
    assert fetcher.download_bytes(f"{server.url}/plain", 1000) == b"x" * 1000


def test_no_byte_beyond_the_signed_length(fetcher: CoordinatorFetcher, server: Served) -> None:
    with pytest.raises(DownloadLengthMismatchError):
        fetcher.download_bytes(f"{server.url}/plain", 999)


@pytest.mark.parametrize(("path", "status"), [("redirect", 302), ("forbidden", 403), ("partial", 206)])  # fmt: skip  # noqa: E501
def test_anything_but_200_is_an_error(
    fetcher: CoordinatorFetcher, server: Served, path: str, status: int
) -> None:
    with pytest.raises(DownloadHTTPError) as caught:
        fetcher.download_bytes(f"{server.url}/{path}", 10_000)
    assert caught.value.status_code == status


def test_compressed_answers_are_not_inflated(fetcher: CoordinatorFetcher, server: Served) -> None:
    assert len(fetcher.download_bytes(f"{server.url}/compressed", 20_000)) < 20_000


def test_a_connection_that_breaks_off_is_a_download_error(
    fetcher: CoordinatorFetcher, server: Served
) -> None:
    with pytest.raises(DownloadError):
        fetcher.download_bytes(f"{server.url}/broken", 1000)


def test_a_trickle_is_given_up(
    fetcher: CoordinatorFetcher, server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release_fetcher, "SLOWEST_BYTES_PER_SECOND", 10**9)
    monkeypatch.setattr(release_fetcher, "SOCKET_SECONDS", 0.1)
    with pytest.raises(SlowRetrievalError):
        fetcher.download_bytes(f"{server.url}/endless", 100_000)


def test_silence_is_given_up(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release_fetcher, "SOCKET_SECONDS", 0.3)
    impatient = CoordinatorFetcher(
        server.url, connection=Connection(server.ca), folder=server.folder
    )
    with pytest.raises(SlowRetrievalError):
        impatient.download_bytes(f"{server.url}/silent", 10)
    impatient.close()


def test_a_foreign_certificate_is_told_from_an_outage(server: Served, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.write_bytes(make_authority().certificate)
    wary = CoordinatorFetcher(server.url, connection=Connection(foreign), folder=tmp_path)
    with pytest.raises(DownloadError) as caught:
        wary.download_bytes(f"{server.url}/plain", 1000)
    assert is_untrusted(caught.value)
    wary.close()


@pytest.mark.parametrize("url", ["http://127.0.0.1", "ftp://x", "127.0.0.1:80", "", "https://"])
def test_only_https_addresses(server: Served, url: str) -> None:
    with pytest.raises(ConfigurationError):
        CoordinatorFetcher(url, connection=Connection(server.ca), folder=server.folder)


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_an_unusable_ca_is_a_configuration_error(tmp_path: Path, content: bytes | None) -> None:
    ca = tmp_path / "ca.crt"
    if content is not None:
        ca.write_bytes(content)
    with pytest.raises(ConfigurationError):
        CoordinatorFetcher("https://127.0.0.1", connection=Connection(ca), folder=tmp_path)
