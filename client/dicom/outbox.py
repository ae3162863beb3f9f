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
from dataclasses import dataclass
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken
from pydantic import BaseModel, ConfigDict, ValidationError

from client.cases.pseudonyms import Pseudonyms
from client.dicom.picture import DicomContext
from common.folders import sync_folder, write_private

log = logging.getLogger(__name__)

_SUFFIX = ".report"


class _Sealed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    case_id: str
    created: float
    context: dict[str, str]
    report: str | None


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
    report : bytes or None
        The written report, once there is one.
    """

    id: str
    case_id: str
    created: float
    context: DicomContext
    report: bytes | None = None


class ReportOutbox:
    """The files of one folder. One process may use it at a time.

    Parameters
    ----------
    folder : Path
        Made if it is not there, mode 0700.
    pseudonyms : Pseudonyms
        Holder of the site's secret key.
    """

    def __init__(self, folder: Path, pseudonyms: Pseudonyms) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for draft in folder.glob(f".*{_SUFFIX}.*"):  # of a writer that was killed
            draft.unlink(missing_ok=True)
        self._folder = folder
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
            report=None if pending.report is None else base64.b64encode(pending.report).decode(),
        )
        token = self._fernet.encrypt(sealed.model_dump_json().encode())
        write_private(self._path(pending.id), token)

    def pending(self) -> list[str]:
        """Return the ids of all that is not delivered, oldest file first."""
        files = [p for p in self._folder.glob(f"*{_SUFFIX}") if not p.name.startswith(".")]
        return [p.stem for p in sorted(files, key=lambda p: p.stat().st_mtime)]

    def read(self, identifier: str) -> Pending | None:
        """Return what is kept; None, and a log line, if it cannot be read any more."""
        try:
            sealed = _Sealed.model_validate_json(
                self._fernet.decrypt(self._path(identifier).read_bytes())
            )
        except (OSError, InvalidToken, ValidationError) as error:
            log.error("event=dicom-report-unreadable id=%s %s", identifier, type(error).__name__)
            return None
        report = None if sealed.report is None else base64.b64decode(sealed.report)
        context = DicomContext(sealed.context)
        return Pending(identifier, sealed.case_id, sealed.created, context, report)

    def remove(self, identifier: str) -> None:
        """Forget a report."""
        self._path(identifier).unlink(missing_ok=True)
        sync_folder(self._folder)

    def _path(self, identifier: str) -> Path:
        return self._folder / f"{identifier}{_SUFFIX}"
