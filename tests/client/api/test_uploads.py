import asyncio
import struct
import tempfile
import zlib
from collections.abc import Iterator

import httpx
import pytest
from fastapi import Request
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.api.uploads import read_upload
from common.errors import InputRefused
from tests.client.serving import ServedSite, picture


def bomb_header() -> bytes:
    """A PNG that claims 50,000 x 50,000 pixels."""
    body = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk


def check_problem(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["status"], body["code"]) == (status, code)
    assert body["what"]
    assert body["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("image", "status", "code"),
    [
        (b"this is a text file", 415, "image-unreadable"),
        (picture(size=(200, 100), format="JPEG")[:2000], 422, "image-truncated"),
        (picture()[:200], 422, "image-truncated"),
        (bomb_header(), 413, "image-too-large"),
        (b"", 422, "upload-without-image"),
        (picture(size=(4, 4)), 422, "image-too-small"),
        (bytes(100_001), 413, "upload-too-large"),
    ],
    ids=["text", "truncated-jpeg", "truncated-png", "bomb", "empty", "small", "oversize"],
)
@pytest.mark.parametrize("path", ["/predict", "/cases"])
def test_unusable_images(site: ServedSite, path: str, image: bytes, status: int, code: str) -> None:
    answer = site.call("POST", path, files={"image": ("scan.png", image, "image/png")})
    check_problem(answer, status, code)
    assert site.services.store.counts("dermoscopy").waiting == 0


def test_what_is_no_multipart(site: ServedSite) -> None:
    check_problem(site.call("POST", "/predict", content=picture()), 415, "not-multipart")
    check_problem(site.call("POST", "/predict", json={"image": "x"}), 415, "not-multipart")
    headers = {"content-type": "multipart/form-data"}
    answer = site.call("POST", "/predict", content=b"x", headers=headers)
    check_problem(answer, 422, "upload-malformed")
    headers["content-type"] += "; boundary=a; charset=no-such"
    body = b'--a\r\nContent-Disposition: form-data; name="image"\r\n\r\nx\r\n--a--\r\n'
    answer = site.call("POST", "/predict", content=body, headers=headers)
    check_problem(answer, 422, "upload-without-image")
    answer = site.call("POST", "/predict", content=b"--a\r\n--a\r\n--b", headers=headers)
    check_problem(answer, 422, "upload-malformed")


@pytest.mark.parametrize(
    "files",
    [
        {"picture": ("a.png", picture())},
        [("image", ("a.png", picture())), ("image", ("b.png", picture()))],
        [("image", ("a.png", picture())), *((f"f{i}", (None, "x")) for i in range(9))],
        [("image", ("a.png", picture())), ("label", (None, "x" * 5000))],
        [("image", ("a.png", picture())), ("label", (None, "nv")), ("label", (None, "mel"))],
    ],
    ids=["other-name", "two-images", "many-fields", "long-field", "field-twice"],
)
def test_parts_that_do_not_fit(site: ServedSite, files: object) -> None:
    answer = site.call("POST", "/cases", files=files)
    assert answer.status_code == 422
    assert answer.json()["code"] in {"upload-malformed", "upload-without-image"}


def streamed_request(chunks: Iterator[bytes], *, declared: int | None = None) -> Request:
    headers = [(b"content-type", b"multipart/form-data; boundary=edge")]
    if declared is not None:
        headers.append((b"content-length", str(declared).encode()))

    async def receive() -> dict[str, object]:
        chunk = next(chunks, None)
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


HEAD = b'--edge\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'


def test_an_endless_stream_is_cut_at_the_limit() -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        yield HEAD
        while True:
            taken += 1
            yield bytes(1000)

    with pytest.raises(InputRefused) as refused:
        asyncio.run(read_upload(streamed_request(endless()), maximum_bytes=50_000))
    assert refused.value.code == "upload-too-large"
    assert taken < 80


def test_a_declared_size_is_refused_unread() -> None:
    chunks = iter([HEAD])
    request = streamed_request(chunks, declared=10**9)
    with pytest.raises(InputRefused) as refused:
        asyncio.run(read_upload(request, maximum_bytes=50_000))
    assert refused.value.code == "upload-too-large"
    assert next(chunks) == HEAD


def test_a_slow_upload_is_given_up() -> None:
    async def receive() -> dict[str, object]:
        await asyncio.Event().wait()
        return {}

    headers = [(b"content-type", b"multipart/form-data; boundary=edge")]
    request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    with pytest.raises(InputRefused) as refused:
        asyncio.run(read_upload(request, maximum_bytes=1000, seconds=0.02))
    assert refused.value.code == "upload-slow"


def test_uploads_never_touch_the_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_args: object, **_options: object) -> object:
        raise AssertionError("a patient's image went to the temporary folder")

    monkeypatch.setattr(tempfile, "TemporaryFile", forbidden)
    chunks = iter([HEAD, *[bytes(500_000)] * 6, b"\r\n--edge--\r\n"])
    upload = asyncio.run(read_upload(streamed_request(chunks), maximum_bytes=4_000_000))
    assert len(upload.image) == 3_000_000


@given(st.lists(st.binary(max_size=300), max_size=5), st.booleans())
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_bytes_give_an_upload_or_a_refusal(chunks: list[bytes], headed: bool) -> None:
    parts = iter([HEAD, *chunks, b"\r\n--edge--\r\n"] if headed else chunks)
    code, image = "", b""
    try:
        image = asyncio.run(read_upload(streamed_request(parts), maximum_bytes=10_000)).image
    except InputRefused as refused:
        code = refused.code
    assert bool(image) != code.startswith("upload-")
