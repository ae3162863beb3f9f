"""A PACS for tests: DICOMweb as it should be, and in ways that it should not."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from pydicom import Dataset

from tests.client.dicom.files import file_bytes

BOUNDARY = "frontier"
JSON = "application/dicom+json"
Handler = BaseHTTPRequestHandler


@dataclass
class FakePacs:
    """Files by SOP Instance UID; ``odd`` answers in the place of a path's ordinary answer."""

    files: dict[str, tuple[Dataset, bytes]] = field(default_factory=dict)
    odd: dict[str, Callable[[Handler], None]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)
    """Bodies that came by STOW-RS."""
    answers: list[tuple[int, bytes]] = field(default_factory=list)
    """Status and body of the next answers to these; 200 and nothing after them."""
    knows_offset: bool = True
    most: int | None = None
    """Rows of one answer, whatever ``limit`` asks for."""
    port: int = 0
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/dicom-web"

    def put(self, made: Dataset) -> Dataset:
        self.files[str(made.SOPInstanceUID)] = (made, file_bytes(made))
        return made

    def fetched(self) -> list[str]:
        return [path for path in self.asked if "/instances/" in path]

    def rows(self, query: dict[str, list[str]]) -> list[object]:
        wanted = query.get("Modality")
        found = [m for m, _ in self.files.values() if wanted is None or m.Modality in wanted]
        start = int(query.get("offset", ["0"])[0]) if self.knows_offset else 0
        size = min(int(query["limit"][0]), self.most or len(found))
        return [row_of(made) for made in found[start : start + size]]

    def answer(self, handler: Handler) -> None:
        parts = urlsplit(handler.path)
        self.asked.append(handler.path)
        self.headers.append({k.lower(): v for k, v in handler.headers.items()})
        odd = next((act for start, act in self.odd.items() if start in parts.path), None)
        if odd is not None:
            odd(handler)
        elif parts.path.endswith("/instances"):
            body = json.dumps(self.rows(parse_qs(parts.query))).encode()
            reply(handler, body, JSON)
        else:
            _, data = self.files[parts.path.rsplit("/", 1)[1]]
            reply(handler, multipart(data), MULTIPART)

    def take(self, handler: Handler) -> None:
        self.sent.append(handler.rfile.read(int(handler.headers["content-length"])))
        status, body = self.answers.pop(0) if self.answers else (200, b"{}")
        reply(handler, body, JSON, status)


MULTIPART = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'


def row_of(made: Dataset) -> dict[str, dict[str, object]]:
    names = {
        "0020000D": made.StudyInstanceUID,
        "0020000E": made.SeriesInstanceUID,
        "00080018": made.SOPInstanceUID,
    }
    return {tag: {"vr": "UI", "Value": [str(uid)]} for tag, uid in names.items()}


def multipart(*parts: bytes) -> bytes:
    head = b"Content-Type: application/dicom\r\n\r\n"
    body = b"".join(f"\r\n--{BOUNDARY}\r\n".encode() + head + part for part in parts)
    return body + f"\r\n--{BOUNDARY}--\r\n".encode()


def reply(handler: Handler, body: bytes, kind: str, status: int = 200) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def says(body: bytes, kind: str, status: int = 200) -> Callable[[Handler], None]:
    return lambda handler: reply(handler, body, kind, status)


def redirecting(handler: Handler) -> None:
    handler.send_response(302)
    handler.send_header("Location", "/elsewhere")
    handler.send_header("Content-Length", "0")
    handler.end_headers()


@contextmanager
def fake_pacs(*, tls: ssl.SSLContext | None = None) -> Iterator[FakePacs]:
    pacs = FakePacs(scheme="http" if tls is None else "https")

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                pacs.answer(self)
            except OSError:  # hung up on, as some tests want
                self.close_connection = True

        def do_POST(self) -> None:
            pacs.take(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    pacs.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield pacs
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
