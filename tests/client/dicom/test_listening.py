"""Strangers at the DICOM port: no memory, no time and no place of a known sender's for them."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pynetdicom import AE
from pynetdicom.acse import ACSE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made from a table

from client.dicom import listening
from client.dicom.receiver import StorageReceiver
from client.dicom.settings import DicomSettings
from deploy.certificates import make_authority, make_server_certificate
from tests.client.dicom.files import dataset
from tests.client.dicom.test_receiver import sent

SETTINGS = DicomSettings(port=0, callers=("PACS",), associations=1)
ASSOCIATE_RQ = b"\x01\x00"


@contextlib.contextmanager
def listening_port(settings: DicomSettings = SETTINGS) -> Iterator[int]:
    receiver = StorageReceiver(settings, lambda _data: None)
    yield receiver.start()
    receiver.stop()


def connect(port: int) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), timeout=10)
    made.settimeout(10)
    return made


def hung_up(connection: socket.socket) -> bool:
    """Wait until the other side has closed the connection."""
    try:
        while connection.recv(4096):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def test_a_pdu_that_claims_gigabytes_is_not_read() -> None:
    with listening_port() as port, connect(port) as stranger:
        stranger.sendall(ASSOCIATE_RQ + struct.pack(">I", 2**32 - 1))
        written = 0
        with contextlib.suppress(OSError):
            while written < 64 * 2**20:
                written += stranger.send(bytes(2**16))
        assert written < 16 * 2**20, "what the two sockets hold, and no more"
        assert sent(port, dataset()).Status == 0


def test_a_pdu_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "PDU_SECONDS", 0.3)
    with listening_port() as port, connect(port) as stranger:
        stranger.sendall(ASSOCIATE_RQ + struct.pack(">I", 1000))
        began = time.monotonic()
        for _ in range(100):  # a byte now and then starts no new wait
            try:
                stranger.sendall(b"x")
            except OSError:
                break
            time.sleep(0.05)
        assert time.monotonic() - began < 3
        assert hung_up(stranger)


def test_connections_that_ask_for_nothing_take_no_senders_place() -> None:
    with listening_port() as port, contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(connect(port))
        assert sent(port, dataset()).Status == 0


def test_the_oldest_of_too_many_connections_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "SPARE_CONNECTIONS", 3)
    with listening_port() as port, contextlib.ExitStack() as stack:
        strangers = [stack.enter_context(connect(port)) for _ in range(8)]
        assert all(hung_up(stranger) for stranger in strangers[:4])
        assert sent(port, dataset()).Status == 0


def test_of_two_that_ask_at_once_one_gets_the_only_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entity = AE(ae_title="PACS")
    entity.add_requested_context(Verification)
    with listening_port() as port, monkeypatch.context() as patched, ThreadPoolExecutor(2) as pool:
        both_decided = threading.Barrier(2)
        for name in ("send_accept", "send_reject"):
            patched.setattr(ACSE, name, _once(both_decided, getattr(ACSE, name)))
        asked = [
            pool.submit(entity.associate, "127.0.0.1", port, ae_title="WARDROUND") for _ in range(2)
        ]
        answers = [one.result() for one in asked]
        assert sorted(answer.is_established for answer in answers) == [False, True]
        patched.undo()
        assert "Status" not in sent(port, dataset())
        for answer in answers:
            answer.release()
        assert sent(port, dataset()).Status == 0  # the place is free again


def _once(passed: threading.Barrier, answer: Callable[..., None]) -> Callable[..., None]:
    def waits(acse: ACSE, *args: int) -> None:
        passed.wait(10)
        answer(acse, *args)

    return waits


def test_a_connection_whose_association_has_not_begun_is_still_counted() -> None:
    association = threading.Thread(target=int)  # which an association is
    assert not listening._has_ended(association)
    association.start()
    association.join()
    assert listening._has_ended(association)


def test_a_handshake_that_never_comes_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "HANDSHAKE_SECONDS", 0.5)
    authority = make_authority()
    own = make_server_certificate(authority, hosts=["127.0.0.1"])
    (tmp_path / "crt").write_bytes(own.certificate)
    (tmp_path / "key").write_bytes(own.key)
    fields = {"tls_certificate": tmp_path / "crt", "tls_key": tmp_path / "key"}
    settings = SETTINGS.model_copy(update=fields)
    trusting = ssl.create_default_context(cadata=authority.certificate.decode())
    with listening_port(settings) as port, connect(port) as silent, connect(port) as wrong:
        wrong.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert sent(port, dataset(), tls=(trusting, "127.0.0.1")).Status == 0
        assert hung_up(silent)
        assert hung_up(wrong)
