"""What a site asks of a PACS by DICOMweb: what is new (QIDO-RS), and one image (WADO-RS).

The files' bytes are handed on as they came: they are parsed in the decoding process alone.
PS3.18, 10.6 (search) and 10.4 (retrieve).
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import requests
from dicomweb_client.api import DICOMwebClient
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from client.dicom.bounded_http import BoundedAdapter
from client.dicom.settings import DicomwebSettings
from common.errors import ConfigurationError, ProcessError

log = logging.getLogger(__name__)

PAGE = 200
"""Rows asked for at once; a PACS may give fewer (PS3.18, 10.6.3.2)."""
MOST_IMAGES = 50_000
"""Of one search; whoever has more looks back fewer days."""
_SEARCH_BYTES = 32 * 1024 * 1024
_ENVELOPE_BYTES = 64 * 1024
_CODES = dict.fromkeys((401, 403), "refused") | dict.fromkeys((400, 404, 406, 410), "not-given")
_NO_CONNECTION = (httpx.ConnectError, httpx.ConnectTimeout)
_OF_THE_PACS = frozenset({"dicomweb-away", "dicomweb-refused"})


@dataclass(frozen=True)
class Listed:
    """An image that the PACS has. Identifies a study: in memory only, never logged."""

    study: str = field(repr=False)
    series: str = field(repr=False)
    instance: str = field(repr=False)


class _Uid(BaseModel):
    model_config = ConfigDict(extra="ignore")

    values: tuple[str, ...] = Field(alias="Value", min_length=1, max_length=1)


class _Row(BaseModel):
    model_config = ConfigDict(extra="ignore")

    study: _Uid = Field(alias="0020000D")
    series: _Uid = Field(alias="0020000E")
    instance: _Uid = Field(alias="00080018")


class DicomwebSource:
    """A PACS, as far as the site asks it.

    Parameters
    ----------
    settings : DicomwebSettings
        With a ``url``.
    keys : Path
        The site's folder of secrets.
    maximum_bytes : int
        Of one image.

    Raises
    ------
    ConfigurationError
        If the address is plain beyond loopback, or a secret or certificate cannot be read.
    """

    def __init__(self, settings: DicomwebSettings, keys: Path, *, maximum_bytes: int) -> None:
        assert settings.url is not None
        _check_address(settings)
        # They log addresses, which name studies.
        for name in ("dicomweb_client", "httpx", "httpcore", "urllib3"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        self._settings, self._secrets = settings, _secrets(settings, keys)
        self._search = self._client(_SEARCH_BYTES)
        self._retrieve = self._client(maximum_bytes + _ENVELOPE_BYTES)
        self._maximum = maximum_bytes

    def listed(self, modalities: Collection[str] | None, *, today: date) -> Iterator[Listed]:
        """Yield the images of the last days, page by page; each once.

        Parameters
        ----------
        modalities : collection of str or None
            (0008,0060); None is any.
        today : date
            The day that ends the search.

        Raises
        ------
        ProcessError
            With a code that begins with ``dicomweb-``, if the PACS is away or answers nonsense.
        """
        first = today - timedelta(days=self._settings.look_back_days)
        # A day more: clocks and time zones differ.
        days = f"{first:%Y%m%d}-{today + timedelta(days=1):%Y%m%d}"
        for modality in sorted(modalities) if modalities is not None else [None]:
            filters = {"StudyDate": days} | ({} if modality is None else {"Modality": modality})
            yield from self._pages(filters)

    def fetch(self, listed: Listed) -> bytes:
        """Return an image's file, in the transfer syntax that the PACS keeps it in.

        Raises
        ------
        ProcessError
            With code ``dicomweb-away`` if no connection could be made; else, of this image,
            ``dicomweb-not-given``, ``-malformed``, ``-too-slow`` or ``-too-large``.
        """
        path = f"studies/{listed.study}/series/{listed.series}/instances/{listed.instance}"
        url = f"{(self._settings.url or '').rstrip('/')}/{path}"
        try:
            parts = self._asked(lambda: self._retrieve.retrieve_bulkdata(url))
        except ProcessError as error:
            if error.code not in _OF_THE_PACS or isinstance(error.__cause__, _NO_CONNECTION):
                raise
            # It answered, only not with this image: a status, a redirect, a connection that broke.
            raise ProcessError(
                "The PACS did not give an image.",
                action="Look at its DICOMweb service if this goes on.",
                code="dicomweb-not-given",
            ) from None
        if len(parts) != 1:
            raise _malformed(f"{len(parts)} parts for one image")
        data = bytes(parts[0])
        if len(data) > self._maximum:
            raise ProcessError("The image is too large.", code="dicomweb-too-large")
        return data

    def _pages(self, filters: dict[str, str]) -> Iterator[Listed]:
        """Yield all that a search finds; a PACS may give fewer rows than it was asked for."""
        seen: set[str] = set()
        rows: list[Any] = []
        had = 0
        while had < MOST_IMAGES:
            try:
                rows = self._asked(
                    lambda offset=had: self._search.search_for_instances(
                        limit=PAGE, offset=offset, search_filters=filters
                    )
                )
            except ProcessError as error:
                if 0 < len(rows) < PAGE and error.code == "dicomweb-not-given":
                    return  # it has no page behind the last one
                raise
            # A PACS that knows no offset sends the first page for ever.
            fresh = {row.instance: row for row in map(_parsed, rows) if row.instance not in seen}
            if not fresh:
                return
            seen.update(fresh)
            had += len(rows)
            yield from fresh.values()
        log.warning("event=dicomweb-search-cut images=%d", had)

    def _asked(self, ask: Any) -> list[Any]:
        try:
            found = ask()
        except ProcessError:
            raise
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            raise ProcessError(
                f"The PACS answered with status {status}.",
                action="Check url, user and password of the [dicomweb] table.",
                code=f"dicomweb-{_CODES.get(status, 'away')}",
            ) from None  # its text holds the address
        except Exception as error:  # dicomweb_client raises what its parsing happens to raise
            raise _malformed(type(error).__name__) from None
        if not isinstance(found, list):
            raise _malformed("no list")
        return found

    def _client(self, maximum_bytes: int) -> DICOMwebClient:
        session = requests.Session()
        session.trust_env = False  # no .netrc, no proxy of the environment
        adapter = BoundedAdapter(
            maximum_bytes=maximum_bytes, seconds=self._settings.seconds, ca=self._settings.ca
        )
        for scheme in ("http://", "https://"):
            session.mount(scheme, adapter)
        session.auth = self._secrets.basic
        if self._secrets.token is not None:
            session.headers["Authorization"] = f"Bearer {self._secrets.token}"
        client = DICOMwebClient(str(self._settings.url), session=session, permissive_uid=True)
        client.set_http_retry_params(retry=False)  # what failed is asked for at the next poll
        return client


@dataclass(frozen=True)
class _Secrets:
    basic: tuple[str, str] | None = field(repr=False)
    token: str | None = field(repr=False)


def _secrets(settings: DicomwebSettings, keys: Path) -> _Secrets:
    token = keys / "dicomweb-token"
    if settings.user is None:
        return _Secrets(None, _read(token) if token.exists() else None)
    return _Secrets((settings.user, _read(keys / "dicomweb-password")), None)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"The PACS' secret {path} cannot be read ({type(error).__name__}).",
            action="Write it there, mode 0600, or leave `user` out of the [dicomweb] table.",
        ) from error


def _check_address(settings: DicomwebSettings) -> None:
    parts = urlsplit(str(settings.url))
    loopback = parts.hostname in ("127.0.0.1", "::1", "localhost")
    if parts.scheme == "https" or loopback or settings.allow_plain:
        return
    raise ConfigurationError(
        "The PACS will not be asked without TLS.",
        meaning="Patients' images and the password would cross the network in the clear.",
        action="Give an https address, or set allow_plain on a trusted network.",
        code="dicomweb-without-tls",
    )


def _parsed(row: Any) -> Listed:
    try:
        found = _Row.model_validate(row)
    except ValidationError:
        raise _malformed("a row without its UIDs") from None
    uids = [uid.values[0] for uid in (found.study, found.series, found.instance)]
    if not all(_is_uid(uid) for uid in uids):
        raise _malformed("a UID that is none")
    return Listed(*uids)


def _is_uid(text: str) -> bool:
    """Tell whether it is a UID (PS3.5, 9.1); anything else would change the address asked."""
    return len(text) <= 64 and all(part.isascii() and part.isdigit() for part in text.split("."))


def _malformed(how: str) -> ProcessError:
    return ProcessError(f"The PACS' answer cannot be read ({how}).", code="dicomweb-malformed")
