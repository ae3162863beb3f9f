"""Asking a PACS: to its last page, with secrets, over TLS, and bounded whatever it answers."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from client.dicom.settings import DicomwebSettings
from client.dicom.web import DicomwebSource
from common.errors import ConfigurationError, ProcessError
from deploy.certificates import make_authority, make_server_certificate
from tests.client.dicom.fetching import LIMIT, TODAY, image, source
from tests.client.dicom.pacs import JSON, FakePacs, Handler, fake_pacs, redirecting, reply, says


def test_the_search_names_days_and_modality(pacs: FakePacs, tmp_path: Path) -> None:
    made = source(pacs, tmp_path, look_back_days=2)
    assert list(made.listed({"XC", "OT"}, today=TODAY)) == []
    assert len(pacs.asked) == 2
    assert all("StudyDate=20261119-20261122" in path for path in pacs.asked)
    assert ["Modality=OT" in pacs.asked[0], "Modality=XC" in pacs.asked[1]] == [True, True]


@pytest.mark.parametrize(("page", "most"), [(2, None), (200, 2)], ids=["ours", "the-pacs'"])
@pytest.mark.parametrize("knows_offset", [True, False])
def test_pages_are_read_to_their_end(
    pacs: FakePacs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    knows_offset: bool,
    page: int,
    most: int | None,
) -> None:
    monkeypatch.setattr("client.dicom.web.PAGE", page)
    pacs.knows_offset, pacs.most = knows_offset, most
    for number in range(5):
        pacs.put(image(number))
    found = [listed.instance for listed in source(pacs, tmp_path).listed(None, today=TODAY)]
    assert found == [f"1.2.3.{n}" for n in ((1, 2, 3, 4, 5) if knows_offset else (1, 2))]
    assert len(pacs.asked) == (4 if knows_offset else 2)


def test_a_pacs_that_knows_no_page_beyond_its_last_has_answered(
    pacs: FakePacs, tmp_path: Path
) -> None:
    pacs.put(image())
    pacs.odd["/instances"] = lambda handler: (
        reply(handler, b"no such page", "text/plain", 404)
        if "offset=1" in handler.path
        else reply(handler, json.dumps(pacs.rows({"limit": ["9"]})).encode(), JSON)
    )
    found = [listed.instance for listed in source(pacs, tmp_path).listed(None, today=TODAY)]
    assert (found, len(pacs.asked)) == (["1.2.3.1"], 2)


def test_a_search_has_an_end(
    pacs: FakePacs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("client.dicom.web.MOST_IMAGES", 3)
    pacs.most = 2
    for number in range(6):
        pacs.put(image(number))
    assert len(list(source(pacs, tmp_path).listed(None, today=TODAY))) == 4
    assert "dicomweb-search-cut" in caplog.text


def dripping(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "application/dicom+json")
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.1)


def dripping_headers(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(100):
        handler.wfile.write(b"X-%d: 1\r\n" % number)
        handler.wfile.flush()
        time.sleep(0.1)


def squeezed(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "application/dicom+json")
    handler.send_header("Content-Encoding", "gzip")
    handler.end_headers()
    handler.wfile.write(b"\x1f\x8b" + bytes(64))


DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    ("odd", "code"),
    [
        (says(b"<html>", "text/html"), "dicomweb-malformed"),
        (says(b"7", JSON), "dicomweb-malformed"),
        (says(b'[{"00080018": {}}]', JSON), "dicomweb-malformed"),
        (says(DEEP, JSON), "dicomweb-malformed"),
        (
            says(
                b'[{"0020000D": {"Value": ["1.2"]}, "0020000E": {"Value": ["1.2"]},'
                b' "00080018": {"Value": ["../../secret?x="]}}]',
                JSON,
            ),
            "dicomweb-malformed",
        ),
        (says(b"", JSON, 401), "dicomweb-refused"),
        (says(b"", JSON, 500), "dicomweb-away"),
        (redirecting, "dicomweb-away"),
        (squeezed, "dicomweb-malformed"),
        (dripping, "dicomweb-too-slow"),
        (dripping_headers, "dicomweb-too-slow"),
    ],
)
def test_a_search_that_answers_nonsense_ends_soon(
    pacs: FakePacs, tmp_path: Path, odd: Callable[[Handler], None], code: str
) -> None:
    pacs.odd["/instances"] = odd
    started = time.monotonic()
    with pytest.raises(ProcessError) as caught:
        list(source(pacs, tmp_path, seconds=0.5).listed({"XC"}, today=TODAY))
    assert caught.value.code == code
    assert time.monotonic() - started < 3
    assert "127.0.0.1" not in str(caught.value)
    assert not [path for path in pacs.asked if "elsewhere" in path]


def test_a_pacs_that_is_away_is_asked_again(pacs: FakePacs, tmp_path: Path) -> None:
    gone = DicomwebSource(
        DicomwebSettings(url="http://127.0.0.1:9/x", seconds=2), tmp_path, maximum_bytes=LIMIT
    )
    with pytest.raises(ProcessError) as caught:
        list(gone.listed(None, today=TODAY))
    assert caught.value.code == "dicomweb-away"


def test_secrets_are_read_from_files_and_sent(pacs: FakePacs, tmp_path: Path) -> None:
    (tmp_path / "dicomweb-password").write_text("hush\n")
    list(source(pacs, tmp_path, user="site").listed(None, today=TODAY))
    assert pacs.headers[-1]["authorization"] == "Basic c2l0ZTpodXNo"
    (tmp_path / "dicomweb-token").write_text("tok")
    list(source(pacs, tmp_path).listed(None, today=TODAY))
    assert pacs.headers[-1]["authorization"] == "Bearer tok"
    (tmp_path / "dicomweb-password").unlink()
    with pytest.raises(ConfigurationError):
        source(pacs, tmp_path, user="site")


def test_over_tls_only_to_a_pacs_that_the_site_knows(tmp_path: Path) -> None:
    authority = make_authority()
    own = make_server_certificate(authority, hosts=["127.0.0.1"])
    for name, data in (("ca", authority.certificate), ("crt", own.certificate), ("key", own.key)):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "other-ca").write_bytes(make_authority().certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    with fake_pacs(tls=context) as pacs:
        pacs.put(image())
        (found,) = source(pacs, tmp_path, ca=tmp_path / "ca").listed({"XC"}, today=TODAY)
        assert found.instance == "1.2.3.1"
        for ca in (None, tmp_path / "other-ca"):
            with pytest.raises(ProcessError) as caught:
                list(source(pacs, tmp_path, ca=ca).listed({"XC"}, today=TODAY))
            assert caught.value.code == "dicomweb-away"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"url": "http://pacs.example/x"}, "dicomweb-without-tls"),
        ({"url": "https://pacs.example/x", "ca": "/nowhere.pem"}, "configuration"),
    ],
)
def test_unsafe_settings_are_refused(fields: dict[str, object], code: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        DicomwebSource(DicomwebSettings.model_validate(fields), tmp_path, maximum_bytes=1)
    assert caught.value.code == code
