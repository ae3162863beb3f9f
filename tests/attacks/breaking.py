"""How a true message is broken, for the attacks by malformed messages (Hypothesis).

Bytes are flipped, cut or doubled, JSON fields set to what they must not hold, tensors made of NaN,
wrong types and huge shapes. Three things must never happen to what comes of it: an exception
outside the error tree, one of the wrong branch, and acceptance.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.attacks.attack import Finding

SHORT = 400


class Accepted(Exception):
    """What was broken was taken in all the same."""


DEEP = "[" * 3000 + "]" * 3000
VALUES = st.sampled_from(
    [
        *("-1", "0", "1e999", "-1e999", "NaN", "Infinity", "1e308", "9" * 400, "-0.0"),
        *("null", "true", '""', "[]", "{}", '"\\u0000"', '"\\ud800"', '"../../x"', DEEP),
        f'"{"A" * 5000}"',
    ]
)
"""Raw JSON, so that numbers can be put there that no serialiser writes."""
SPOILT: tuple[Callable[[Any], Any], ...] = (
    lambda a: np.full_like(a, np.nan),
    lambda a: np.full_like(a, np.inf),
    lambda a: np.full_like(a, 3e38),
    lambda a: a.astype(np.float64),
    lambda a: a.astype(np.int64),
    lambda a: a[..., None],
    lambda a: a.reshape(-1)[:-1],
    lambda a: np.zeros((0,), np.float32),
    lambda a: a * np.float32(1e6),
)
"""What becomes of a tensor."""


def with_broken_field(data: st.DataObject, document: bytes) -> bytes:
    """Set one field of a JSON document, at any depth, to what it must not hold; or add one."""
    tree = json.loads(document)
    node, path = tree, []
    while True:
        if data.draw(st.booleans()) and data.draw(st.booleans()):
            key: Any = "surprise" if isinstance(node, dict) else 0
            break
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = data.draw(st.sampled_from(keys)) if keys else "surprise"
        child = node[key] if keys else None
        if not isinstance(child, dict | list) or not child or data.draw(st.booleans()):
            break
        path.append(key)
        node = child
    marker = "@@marker@@"
    if isinstance(node, dict):
        node[key] = marker
    elif node:
        node[0 if key == "surprise" else key] = marker
    else:
        node.append(marker)
    return json.dumps(tree).replace(f'"{marker}"', data.draw(VALUES), 1).encode()


def with_broken_bytes(data: st.DataObject, whole: bytes) -> bytes:
    """Flip, cut, repeat or insert bytes; never returns what it was given."""
    at = data.draw(st.integers(0, len(whole) - 1))
    how = data.draw(st.sampled_from(["flip", "cut", "repeat", "insert", "empty"]))
    if how == "flip":
        flip = data.draw(st.integers(1, 255))
        return whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :]
    if how == "insert":
        return whole[:at] + data.draw(st.binary(min_size=1, max_size=40)) + whole[at:]
    return {"cut": whole[:at], "repeat": whole + whole[at:], "empty": b""}[how]


def broken_records(data: st.DataObject, records: RecordDict) -> RecordDict:
    """Break the envelope, the header or the tensors."""
    header = records["wardround.header"]["json"]
    assert isinstance(header, bytes)
    blob = records["wardround.tensors"]["safetensors"].data
    kind = data.draw(st.sampled_from(["edit", "header", "blob", "shape", "envelope"]))
    stype, dtype = "safetensors", "uint8"
    if kind == "edit":
        header = with_broken_field(data, header)
    elif kind == "header":
        header = with_broken_bytes(data, header)
    elif kind == "blob":
        blob = with_broken_bytes(data, blob)
    elif kind == "shape":
        blob = _reshaped(data, blob)
    else:
        return _enveloped(data, records)
    tensors = ArrayRecord({"safetensors": Array(dtype, (len(blob),), stype, blob)})
    broken = ConfigRecord({"json": header})
    return RecordDict({"wardround.header": broken, "wardround.tensors": tensors})


def _reshaped(data: st.DataObject, blob: bytes) -> bytes:
    """Claim another shape, type or place for a tensor in the blob's own header."""
    (length,) = struct.unpack("<Q", blob[:8])
    inner = with_broken_field(data, blob[8 : 8 + length])
    claimed = data.draw(st.sampled_from([len(inner), 0, 2**40, 2**63]))
    return struct.pack("<Q", claimed) + inner + blob[8 + length :]


def _enveloped(data: st.DataObject, records: RecordDict) -> RecordDict:
    how = data.draw(st.integers(0, 4))
    broken = RecordDict(dict(records))
    if how == 0:
        del broken["wardround.header"]
    elif how == 1:
        del broken["wardround.tensors"]
    elif how == 2:
        broken["wardround.header"] = ConfigRecord({"json": data.draw(st.text(max_size=5))})
    elif how == 3:
        broken["wardround.tensors"] = ConfigRecord({"safetensors": b"x"})
    else:
        array = Array("uint8", (1,), "numpy.ndarray", b"\x80\x04.")  # a pickle
        broken["wardround.tensors"] = ArrayRecord({"safetensors": array})
    return broken


def tried(test: Callable[[st.DataObject], None], count: int) -> Finding:
    """Try ``test`` with ``count`` broken messages; it raises where one of them was taken in."""
    quiet = settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=count == SHORT,
        suppress_health_check=list(HealthCheck),
    )
    seen = 0

    @quiet
    @given(data=st.data())
    def each(data: st.DataObject) -> None:
        nonlocal seen
        seen += 1
        test(data)

    try:
        each()
    except Exception as error:  # Accepted, or whatever should not have come out
        what = str(error) if isinstance(error, Accepted) else f"{type(error).__name__}: {error}"
        return Finding(True, f"after {seen}: {what[:200]}", f"{seen:,} inputs")
    return Finding(False, "none taken in, no exception but a refusal", f"{seen:,} inputs")
