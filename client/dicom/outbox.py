"""Reports on their way to the PACS: one encrypted file each, until it is delivered.

A report must name its patient, or the PACS cannot file it; the site must not keep such names. So
what is needed for filing is encrypted (Fernet: AES-128-CBC with HMAC-SHA256) under a key that is
derived from the site's pseudonym key, written durably before the sender is told that its image
arrived, and deleted once the PACS has the report.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken
from pydantic import BaseModel, ConfigDict, ValidationError

from client.cases.pseudonyms import Pseudonyms
from client.dicom.picture import DicomContext
from common.folders import sync_folder, write_private

log = logging.getLogger(__name__)

SUFFIX = ".report"
"""Of a report's file; what else is in the folder is no report."""
_DRAFT_SECONDS = 3600.0


class _Sealed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    case_id: str
    created: float
    context: dict[str, str]
    report: str | None
    capture: str | None = None
    reported: bool = False


@dataclass(frozen=True)
class Pending:
    """A report to be made or delivered.

    Attributes
    ----------
    id : str
        32 hex digits; keyed, says nothing.
    case_id : str
        The stored case.
    created : float
        Seconds since 1970.
    context : DicomContext
    report, capture : bytes or None
        What was written of it, once it is.
    reported : bool
        The PACS has the report; the heat map is to follow.
    """

    id: str
    case_id: str
    created: float
    context: DicomContext
    report: bytes | None = field(default=None, repr=False)
    capture: bytes | None = field(default=None, repr=False)
    reported: bool = False


class ReportOutbox:
    """The files of one folder. Several processes may keep reports; one delivers them.

    Parameters
    ----------
    folder : Path
        Made if it is not there, mode 0700.
    pseudonyms : Pseudonyms
        Holder of the site's secret key.
    """

    def __init__(self, folder: Path, pseudonyms: Pseudonyms) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for draft in folder.glob(f".*{SUFFIX}.*"):  # of a writer that was killed
            with suppress(FileNotFoundError):  # renamed by one that lives
                if draft.stat().st_mtime < time.time() - _DRAFT_SECONDS:
                    draft.unlink()
        self._folder = folder
        self._unreadable: set[str] = set()
        self._pseudonyms = pseudonyms
        key = hashlib.sha256(pseudonyms.subkey("dicom-outbox")).digest()
        self._fernet = Fernet(base64.urlsafe_b64encode(key))

    def id_of(self, instance: str) -> str:
        """Return the id of an image's report."""
        return self._pseudonyms.subkey(f"dicom-instance {instance}").hex()[:32]

    def keep(self, pending: Pending) -> None:
        """Write durably, over what was there under the same id.

        Raises
        ------
        StoreError
            If the disk fails.
        """
        sealed = _Sealed(
            case_id=pending.case_id,
            created=pending.created,
            context=pending.context.values,
            report=_text(pending.report),
            capture=_text(pending.capture),
            reported=pending.reported,
        )
        token = self._fernet.encrypt(sealed.model_dump_json().encode())
        write_private(self._path(pending.id), token)

    def holds(self, identifier: str) -> bool:
        """Tell whether a report is kept and not delivered yet."""
        return self._path(identifier).exists()

    def pending(self) -> list[str]:
        """Return the ids of all that is not delivered, oldest file first."""
        aged: list[tuple[float, str]] = []
        for path in self._folder.glob(f"*{SUFFIX}"):
            if not path.name.startswith("."):
                with suppress(FileNotFoundError):  # delivered since the folder was read
                    aged.append((path.stat().st_mtime, path.stem))
        return [identifier for _, identifier in sorted(aged)]

    def read(self, identifier: str) -> Pending | None:
        """Return what is kept; None if it is gone, or damaged, with one log line for a file."""
        try:
            sealed = _Sealed.model_validate_json(
                self._fernet.decrypt(self._path(identifier).read_bytes())
            )
        except FileNotFoundError:  # delivered, or its case withdrawn, by another process
            return None
        except (OSError, InvalidToken, ValidationError) as error:
            if identifier not in self._unreadable:
                what = type(error).__name__
                log.error("event=dicom-report-unreadable id=%s %s", identifier, what)
            self._unreadable.add(identifier)
            return None
        self._unreadable.discard(identifier)
        return Pending(
            identifier,
            sealed.case_id,
            sealed.created,
            DicomContext(sealed.context),
            _bytes(sealed.report),
            _bytes(sealed.capture),
            sealed.reported,
        )

    def age(self, identifier: str) -> float:
        """Return for how long a file has been as it is, in seconds; 0 if it is gone."""
        with suppress(FileNotFoundError):
            return time.time() - self._path(identifier).stat().st_mtime
        return 0.0

    def remove(self, identifier: str) -> None:
        """Forget a report."""
        self._unreadable.discard(identifier)
        self._path(identifier).unlink(missing_ok=True)
        sync_folder(self._folder)

    def _path(self, identifier: str) -> Path:
        return self._folder / f"{identifier}{SUFFIX}"


def _text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)
