"""How fresh the site's release is, and why a refresh failed, in stable codes.

The record survives restarts, so that "since when" is not forgotten with the process.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError
from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    SlowRetrievalError,
    UnsignedMetadataError,
)

from client.releases.fetcher import is_untrusted
from common.errors import StoreError, WardroundError
from common.folders import write_private

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheStatus:
    """How fresh the cache is.

    Attributes
    ----------
    version : int or None
        The release in use.
    verified_at : datetime or None
        When the coordinator last answered with fresh, valid metadata (UTC); survives a restart.
    failing_since : datetime or None
        The first failure after the last complete refresh; None while all is well.
    code : str or None
        Stable reason of the last failure, None while all is well: those of `failure_of`, or
        ``release-corrupted``, ``release-rollback``, ``release-rejected``, ``release-mismatch``,
        ``manifest-malformed``, ``disk-full``, ``cache-busy``.
    message : str
        One line for people.
    """

    version: int | None
    verified_at: datetime | None
    failing_since: datetime | None
    code: str | None
    message: str


class Freshness(BaseModel):
    """The part of the status that is written down."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    verified_at: AwareDatetime | None = None
    failing_since: AwareDatetime | None = None
    code: str | None = None
    message: str = ""


class FreshnessFile:
    """Keeps a `Freshness` in memory and, as far as the disk lets it, in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._value = _read(path)

    @property
    def value(self) -> Freshness:
        """What is known."""
        return self._value

    def verified(self, now: datetime) -> None:
        """Note that the coordinator answered with valid, fresh metadata."""
        self._set(verified_at=now)

    def succeeded(self) -> None:
        """Note that a refresh went through to its end."""
        if self._value.code is not None:
            logger.info("release-refresh-recovered after=%s", self._value.code)
        self._set(failing_since=None, code=None, message="")

    def failed(self, code: str, message: str, now: datetime) -> None:
        """Note a failure; the first one's time is kept."""
        log = logger.error if code != self._value.code else logger.info
        log("release-refresh-failed code=%s", code)
        self._set(failing_since=self._value.failing_since or now, code=code, message=message)

    def _set(self, **changes: object) -> None:
        changed = self._value.model_copy(update=changes)
        if changed == self._value:
            return
        self._value = changed
        try:
            write_private(self._path, changed.model_dump_json().encode())
        except StoreError as error:
            logger.warning("release-freshness-unwritten code=%s", error.code)


def failure_of(error: Exception) -> tuple[str, str]:
    """Return the stable code and the line for people of a failed refresh.

    Codes: ``coordinator-unreachable``, ``coordinator-untrusted`` (its certificate),
    ``coordinator-slow``, ``coordinator-error`` (an HTTP status), ``metadata-expired``,
    ``metadata-rollback``, ``metadata-unsigned``, ``metadata-refused``, ``target-refused``,
    ``disk``, or the code of a `WardroundError`.
    """
    if isinstance(error, WardroundError):
        return error.code, error.line()
    if isinstance(error, OSError):
        reason = error.strerror or type(error).__name__
        return "disk", f"The releases folder cannot be used ({reason})."
    if is_untrusted(error):
        return (
            "coordinator-untrusted",
            "The coordinator's certificate was not made by the federation's CA: an interception, "
            "or a new CA. Ask the coordinator for a new start-up kit if it is the latter.",
        )
    for kind, code, message in _FAILURES:
        if isinstance(error, kind):
            return code, message
    return "metadata-refused", "The coordinator's release metadata is not valid."


_FAILURES: tuple[tuple[type[Exception], str, str], ...] = (
    (DownloadHTTPError, "coordinator-error", "The coordinator answered with an HTTP error."),
    (SlowRetrievalError, "coordinator-slow", "The coordinator answers too slowly."),
    (
        DownloadLengthMismatchError,
        "target-refused",
        "The coordinator sent more than was signed; nothing of it was kept.",
    ),
    (DownloadError, "coordinator-unreachable", "The coordinator cannot be reached."),
    (
        ExpiredMetadataError,
        "metadata-expired",
        "The coordinator's signatures have expired: it stopped publishing, someone holds back "
        "newer ones, or a clock is wrong.",
    ),
    (
        BadVersionNumberError,
        "metadata-rollback",
        "The coordinator offered older metadata than this site has seen, or mixed versions.",
    ),
    (
        UnsignedMetadataError,
        "metadata-unsigned",
        "The release metadata is not signed by the keys in the start-up kit.",
    ),
    (
        LengthOrHashMismatchError,
        "target-refused",
        "A downloaded file is not the one that was signed; it was thrown away.",
    ),
)


def _read(path: Path) -> Freshness:
    try:
        return Freshness.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Freshness()
    except (OSError, ValidationError) as error:
        logger.warning("release-freshness-unreadable error=%s", type(error).__name__)
        return Freshness()
