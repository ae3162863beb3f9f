"""The decoding process: ``python -m client.dicom.worker``, one file after another.

Decoders written in C and C++ get hostile bytes here, apart from the service, its keys and its
database: a crash, a hang or a memory bomb costs this process alone. It has a bounded address
space, an alarm that ends it even if its parent is gone, and no standard streams of its own.

Frames on standard input and output: a length (4 bytes, big endian) and as many bytes, twice:
first a JSON document, then a file (in) or a PNG (out).
"""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
import sys
from dataclasses import asdict
from math import ceil
from typing import IO, Any

HEADER = struct.Struct(">II")
_GRACE_SECONDS = 5


def main() -> None:
    """Serve until standard input ends."""
    source, sink = _take_streams()
    limits = _limits(json.loads(_exactly(source, int.from_bytes(_exactly(source, 4), "big"))))
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the patient's picture
    _answer({"modalities": [], "frame": None}, b"", limits)  # import all before the clock runs
    write_frame(sink, {"ready": True}, b"")
    while (frame := read_frame(source)) is not None:
        signal.alarm(ceil(limits.seconds) + _GRACE_SECONDS)
        answer, png = _answer(frame[0], frame[1], limits)
        signal.alarm(0)
        write_frame(sink, answer, png)


def read_frame(stream: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """Read one frame; None at the end of the stream."""
    head = stream.read(HEADER.size)
    if len(head) < HEADER.size:
        return None
    document, body = HEADER.unpack(head)
    return json.loads(_exactly(stream, document)), _exactly(stream, body)


def write_frame(stream: IO[bytes], document: dict[str, Any], body: bytes) -> None:
    """Write one frame."""
    text = json.dumps(document).encode()
    stream.write(HEADER.pack(len(text), len(body)))
    stream.write(text)
    stream.write(body)
    stream.flush()


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError
    return data


def _take_streams() -> tuple[IO[bytes], IO[bytes]]:
    """Keep the pipes, and give the libraries' own printing nowhere to go."""
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    return source, sink


def _limits(document: dict[str, Any]) -> Any:
    from client.dicom.picture import DicomLimits

    return DicomLimits(**document)


def _answer(request: dict[str, Any], data: bytes, limits: Any) -> tuple[dict[str, Any], bytes]:
    from client.dicom.decoding import decode_dicom
    from common.errors import ImageRefused

    hook = os.environ.get("WARDROUND_TEST_DICOM_DECODER")
    if hook:  # a test's own decoder, which hangs or crashes
        import importlib

        decode_dicom = importlib.import_module(hook).decode_dicom
    try:
        picture = decode_dicom(data, limits=limits, **request)
    except ImageRefused as refusal:
        parts = {name: getattr(refusal, name) for name in ("what", "meaning", "action", "code")}
        return {"refused": parts}, b""
    fields = asdict(picture)
    return {"picture": fields}, fields.pop("png")


if __name__ == "__main__":
    try:
        main()
    except (EOFError, KeyboardInterrupt, BrokenPipeError):
        sys.exit(0)
