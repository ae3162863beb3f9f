"""How much a message carries, the same at both ends."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from flwr.app import Array, RecordDict


@dataclass(frozen=True)
class Content:
    """How much a message carries, and what: bytes, and the SHA-256 (hex) over all of them."""

    bytes: int
    sha256: str


def content_of(records: RecordDict) -> Content:
    """Measure what a message carries, the same at the end that sends it and the one that gets it.

    Names and lengths go into the digest too. What Flower and TLS wrap around it is not counted.
    Never raises for what somebody else made: values of other kinds count as their ``repr``.
    """
    digest, total = hashlib.sha256(), 0
    for name in sorted(records):
        record = records[name]
        for key in sorted(record):
            value = record[key]
            data = value.data if isinstance(value, Array) else value
            if not isinstance(data, bytes):
                data = repr(data).encode("utf-8", "surrogatepass")
            digest.update(f"{name!r} {key!r} {len(data)}\n".encode())
            digest.update(data)
            total += len(data)
    return Content(total, digest.hexdigest())
