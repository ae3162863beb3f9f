"""Decoding apart from the service: processes that may die, and are then replaced."""

from __future__ import annotations

import json
import logging
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel, ConfigDict, ValidationError

import client
from client.dicom.picture import DEFAULT_DICOM_LIMITS, DicomContext, DicomLimits, DicomPicture
from client.dicom.refusals import refused
from client.dicom.worker import read_frame, write_frame
from common.errors import Busy, ImageRefused, ProcessError

log = logging.getLogger(__name__)

_ROOT = Path(client.__file__).parents[1]
_START_SECONDS = 60.0
_RESTART_AFTER = 500


class _Context(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    values: dict[str, str]


class _Picture(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    modality: str
    age: str | None
    sex: str | None
    laterality: str | None
    view: str | None
    flags: list[str]
    patient_id: str | None
    instance: str
    context: _Context


class _Refusal(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    what: str
    meaning: str
    action: str
    code: str


class DicomDecoder:
    """Decodes DICOM files in processes of their own, at most ``processes`` at once.

    Processes start when the first file comes, and again when one died, was too slow, or has
    decoded 500 files (C libraries leak). For use from any thread.

    Parameters
    ----------
    processes : int
    limits : DicomLimits
    waiting_seconds : float
        How long a file may wait for a free process before `Busy` is raised.
    """

    def __init__(
        self,
        *,
        processes: int = 1,
        limits: DicomLimits = DEFAULT_DICOM_LIMITS,
        waiting_seconds: float = 30.0,
    ) -> None:
        self._limits = limits
        self._waiting_seconds = waiting_seconds
        self._free: queue.LifoQueue[_Process | None] = queue.LifoQueue()
        self._processes = processes
        self._closed = threading.Event()
        for _ in range(processes):
            self._free.put(None)

    def decode(
        self, data: bytes, *, modalities: Collection[str] | None = None, frame: int | None = None
    ) -> DicomPicture:
        """Decode a file; see `client.dicom.decoding.decode_dicom`.

        A process that died under the file may have died of something else (the machine's memory
        was short): the file is given to one more before it is refused.

        Raises
        ------
        ImageRefused
            As there, or ``dicom-decoder-died`` or ``dicom-too-slow``.
        Busy
            If no process becomes free in time, or the decoder is closed.
        ProcessError
            ``dicom-decoder-unavailable``, if no process starts. The file was not looked at.
        """
        if len(data) > self._limits.bytes:
            raise refused("too-large", "The DICOM file is too large.", action="Export it smaller.")
        request = {
            "modalities": None if modalities is None else sorted(modalities),
            "frame": frame,
        }
        process = self._take()
        kept: _Process | None = None
        try:
            for last in (False, True):
                process = process or _Process(self._limits)
                try:
                    answer, png = process.ask(request, data, self._limits.seconds)
                    break
                except _Lost as lost:
                    process.kill()
                    process = None
                    if lost.slow or last:
                        raise _refusal(lost) from lost
            assert process is not None
            kept = process if process.answered < _RESTART_AFTER else None
            return _picture(answer, png)
        finally:
            if kept is None and process is not None:
                process.kill()
            self._free.put(kept)

    def close(self) -> None:
        """End the processes; files being decoded are finished first."""
        self._closed.set()
        for _ in range(self._processes):
            process = self._free.get()
            if process is not None:
                process.kill()
        self._free.put(None)  # whoever waits is answered by `_take`

    def _take(self) -> _Process | None:
        if not self._closed.is_set():
            try:
                process = self._free.get(timeout=self._waiting_seconds)
            except queue.Empty:
                process = None
                raise Busy(
                    "DICOM files wait to be decoded.", action="Try again in a moment."
                ) from None
            if not self._closed.is_set():
                return process
            self._free.put(process)
        raise Busy("The DICOM decoder is closing.", code="closing")


class _Lost(Exception):
    """A process is no more: it died, or it was killed because it was slow."""

    def __init__(self, slow: bool, seconds: float) -> None:
        super().__init__()
        self.slow, self.seconds = slow, seconds


class _Process:
    """One decoding process and its pipes; `ProcessError` if it does not start."""

    def __init__(self, limits: DicomLimits) -> None:
        self.answered = 0
        # Nothing of the service's environment: it may hold passwords.
        environment = {
            name: value
            for name, value in os.environ.items()
            if name in ("PATH", "LD_LIBRARY_PATH", "WARDROUND_TEST_DICOM_DECODER")
        }
        environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(
            (str(_ROOT), os.environ.get("WARDROUND_TEST_DICOM_PATH", str(_ROOT)))
        )
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "client.dicom.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=environment,
            )
        except OSError as error:
            raise _unavailable(type(error).__name__) from error
        text = json.dumps(asdict(limits)).encode()
        frame = len(text).to_bytes(4, "big") + text
        try:
            self._exchange(lambda pipe: pipe.write(frame), _START_SECONDS)
        except _Lost as lost:
            self.kill()
            raise _unavailable("too slow" if lost.slow else "it died") from lost

    def ask(
        self, request: dict[str, Any], data: bytes, seconds: float
    ) -> tuple[dict[str, Any], bytes]:
        """Have one file decoded; `_Lost` if the process does not survive it."""
        answer = self._exchange(lambda pipe: write_frame(pipe, request, data), seconds)
        self.answered += 1
        return answer

    def kill(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):  # what could not be written to a dead process
                    pipe.close()
        self._process.wait()

    def _exchange(self, write: Any, seconds: float) -> tuple[dict[str, Any], bytes]:
        """Write, then read one frame; a timer kills the process when it is too slow."""
        pipe_in, pipe_out = self._process.stdin, self._process.stdout
        assert pipe_in is not None
        assert pipe_out is not None
        slow = threading.Event()

        def stop() -> None:
            slow.set()
            self._process.kill()

        timer = threading.Timer(seconds, stop)
        timer.daemon = True
        timer.start()
        started = time.monotonic()
        try:
            answer = self._read(write, pipe_in, pipe_out)
        finally:
            timer.cancel()
        if answer is not None:
            return answer
        log.warning(
            "event=dicom-decoder-lost slow=%s seconds=%.1f exit=%s",
            *(slow.is_set(), time.monotonic() - started, self._process.poll()),
        )
        raise _Lost(slow.is_set(), seconds)

    @staticmethod
    def _read(
        write: Any, pipe_in: IO[bytes], pipe_out: IO[bytes]
    ) -> tuple[dict[str, Any], bytes] | None:
        try:
            write(pipe_in)
            pipe_in.flush()
            return read_frame(pipe_out)
        except (OSError, EOFError, ValueError):
            return None


def _refusal(lost: _Lost) -> ImageRefused:
    if lost.slow:
        what = f"The DICOM file could not be decoded within {lost.seconds:g} seconds."
        return refused("too-slow", what, action="Export it uncompressed.")
    what = "The DICOM file made its decoder fail."
    return refused("decoder-died", what, action="Export it uncompressed.")


def _unavailable(how: str) -> ProcessError:
    log.error("event=dicom-decoder-unavailable %s", how)
    return ProcessError(
        f"The process that decodes DICOM files did not start ({how}).",
        meaning="It says nothing of the files: none was looked at.",
        action="See whether the machine has memory and the installation is whole; then try again.",
        code="dicom-decoder-unavailable",
    )


def _picture(answer: dict[str, Any], png: bytes) -> DicomPicture:
    """Believe no more of the process than what fits; it has run on hostile bytes."""
    try:
        if "refused" in answer:
            refusal = _Refusal.model_validate(answer["refused"])
            raise ImageRefused(
                refusal.what, meaning=refusal.meaning, action=refusal.action, code=refusal.code
            )
        fields = _Picture.model_validate(answer.get("picture"))
    except ValidationError as error:
        raise _refusal(_Lost(slow=False, seconds=0.0)) from error
    return DicomPicture(
        png=png,
        modality=fields.modality,
        age=fields.age,
        sex=fields.sex,
        laterality=fields.laterality,
        view=fields.view,
        flags=tuple(fields.flags),
        patient_id=fields.patient_id,
        instance=fields.instance,
        context=DicomContext(fields.context.values),
    )
