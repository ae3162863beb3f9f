"""A hostile file costs one decoding process, never the service."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from client.dicom.decoder import DicomDecoder
from client.dicom.picture import DicomLimits
from common.errors import Busy, ImageRefused, ProcessError
from tests.client.dicom.files import NUMBER, PLANTED, dataset, file_bytes

ROOT = str(Path(__file__).parents[3])


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch) -> Iterator[DicomDecoder]:
    monkeypatch.setenv("WARDROUND_TEST_DICOM_DECODER", "tests.client.dicom.hostile")
    monkeypatch.setenv("WARDROUND_TEST_DICOM_PATH", ROOT)
    monkeypatch.setenv("SECRET_OF_THE_SERVICE", "planted")
    made = DicomDecoder(limits=DicomLimits(seconds=8.0))
    yield made
    made.close()


def refusal(decoder: DicomDecoder, data: bytes) -> str:
    with pytest.raises(ImageRefused) as caught:
        decoder.decode(data)
    assert not [word for word in PLANTED if word in str(caught.value)]
    return caught.value.code


def good(comment: str = "") -> bytes:
    return file_bytes(dataset(ImageComments=comment))


def test_a_crash_a_hang_and_a_hog_are_refused_and_the_next_file_is_decoded(
    decoder: DicomDecoder,
) -> None:
    assert refusal(decoder, good("SEGFAULT")) == "dicom-decoder-died"
    assert decoder.decode(good()).patient_id == NUMBER
    assert refusal(decoder, good("EAT")) in ("dicom-unreadable", "dicom-decoder-died")
    started = time.monotonic()
    assert refusal(decoder, good("HANG")) == "dicom-too-slow"
    assert time.monotonic() - started < 20
    assert decoder.decode(good()).modality == "XC"


def test_what_a_library_prints_does_not_break_the_pipe_nor_reach_a_log(
    decoder: DicomDecoder, capfd: pytest.CaptureFixture[str]
) -> None:
    assert decoder.decode(good("PRINT")).modality == "XC"
    captured = capfd.readouterr()
    assert "PlantedDoe" not in captured.out + captured.err


def test_the_process_has_no_secrets_a_bounded_memory_and_ends_with_the_decoder(
    decoder: DicomDecoder,
) -> None:
    decoder.decode(good())
    process = decoder._free.queue[0]._process  # type: ignore[union-attr]
    proc = Path("/proc") / str(process.pid)
    assert b"SECRET_OF_THE_SERVICE" not in (proc / "environ").read_bytes()
    assert "3221225472" in (proc / "limits").read_text()
    decoder.close()
    assert process.returncode == -signal.SIGKILL
    with pytest.raises(Busy):
        decoder.decode(good())


def test_a_killed_process_is_replaced_and_costs_no_file(decoder: DicomDecoder) -> None:
    decoder.decode(good())
    os.kill(decoder._free.queue[0]._process.pid, signal.SIGKILL)  # type: ignore[union-attr]
    assert decoder.decode(good()).modality == "XC"


SLEEPS = "#!/bin/sh\nexec sleep 60\n"


@pytest.mark.parametrize("program", ["#!/bin/false\n", SLEEPS, None], ids=["dies", "slow", "none"])
def test_a_process_that_does_not_start_says_nothing_of_the_file(
    program: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    if program is not None:
        python.write_text(program)
        python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr("client.dicom.decoder._START_SECONDS", 1.0)
    with closing(DicomDecoder(waiting_seconds=0.1)) as decoder:
        for _ in range(2):  # the place among the processes is free again
            with pytest.raises(ProcessError) as caught:
                decoder.decode(good())
            assert caught.value.code == "dicom-decoder-unavailable"


def test_who_waits_too_long_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARDROUND_TEST_DICOM_DECODER", "tests.client.dicom.hostile")
    monkeypatch.setenv("WARDROUND_TEST_DICOM_PATH", ROOT)
    decoder = DicomDecoder(limits=DicomLimits(seconds=6.0), waiting_seconds=0.1)
    slow = threading.Thread(target=refusal, args=(decoder, good("HANG")))
    slow.start()
    time.sleep(0.5)
    with pytest.raises(Busy):
        decoder.decode(good())
    slow.join()
    decoder.close()
