"""Whether a PACS has an instance that was sent to it by STOW-RS, by what it answers."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

from pydicom import dcmread

_REFERENCED, _FAILED = "00081199", "00081198"
_INSTANCE, _REASON = "00081155", "00081197"
_DUPLICATE = 0x0111


def is_kept(status: int, body: bytes, instance: bytes) -> bool:
    """Tell whether a PACS has an instance, by its answer (DICOM PS3.18, 10.5.3 and annex I.2).

    It has, if it names it among the Referenced SOPs (with 202, too, which says that there were
    warnings), or if it failed because it is there already: an earlier answer may have got lost.
    Without either a 200 counts that names no failure: Orthanc sends empty sequences, and some
    send no JSON at all.

    Parameters
    ----------
    status : int
        Of the HTTP answer.
    body : bytes
    instance : bytes
        The Part 10 file that was sent.
    """
    answer = _document(body)
    uid = str(dcmread(io.BytesIO(instance), specific_tags=["SOPInstanceUID"]).SOPInstanceUID)
    if any(_value(item, _INSTANCE) == uid for item in _items(answer, _REFERENCED)):
        return True
    failures = list(_items(answer, _FAILED))
    if any(_is_duplicate(item, uid) for item in failures):
        return True
    return status == 200 and not failures


def _is_duplicate(item: dict[str, Any], uid: str) -> bool:
    """Tell whether an item says so of our instance; one was sent, so that it may name none."""
    return _value(item, _REASON) == _DUPLICATE and _value(item, _INSTANCE) in (None, uid)


def _document(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):  # no JSON, which is allowed
        return {}
    return found if isinstance(found, dict) else {}


def _items(document: dict[str, Any], tag: str) -> Iterator[dict[str, Any]]:
    found = document.get(tag)
    values = found.get("Value") if isinstance(found, dict) else None
    for item in values if isinstance(values, list) else ():
        yield item if isinstance(item, dict) else {}


def _value(item: dict[str, Any], tag: str) -> object:
    found = item.get(tag)
    values = found.get("Value") if isinstance(found, dict) else None
    return values[0] if isinstance(values, list) and values else None
