"""From a received image to a report in the PACS: predict, write, send; again until it is there.

Where a heat map is asked for, it follows the report, which never waits for it. Before anything is
sent, also what was written long ago, its case is looked up: of one that was withdrawn nothing goes.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from dataclasses import replace
from typing import Protocol

import httpx

from client.cases.store import CaseStore
from client.dicom.answer import Answer, ExplainedAnswer
from client.dicom.capture import write_capture
from client.dicom.filing import can_be_filed
from client.dicom.outbox import Pending, ReportOutbox
from client.dicom.report import write_report
from client.dicom.settings import DicomSettings
from client.dicom.stored import is_kept
from common.errors import ProcessError, StoreError, WardroundError

log = logging.getLogger(__name__)

_FIRST_WAIT, _LONGEST_WAIT = 1.0, 300.0
_TIMEOUT = 60.0
_DAY = 86_400.0


class Predicts(Protocol):
    """Asks a model; `ServicePredictor` does, and a fake."""

    def __call__(self, image: bytes) -> Answer | None:
        """Return the answer; None if the image is refused for good; raise to be asked again."""


class Explains(Protocol):
    """Asks for a heat map; `ServiceExplainer` does, and a fake."""

    def __call__(self, image: bytes) -> ExplainedAnswer | None:
        """Return it; None if there will never be one; raise to be asked again."""


class Archive(Protocol):
    """Takes reports; `StowArchive` does, and a fake."""

    def __call__(self, report: bytes) -> None:
        """Return once the report is kept; raise `ProcessError` to be asked again."""


class StowArchive:
    """Sends reports by STOW-RS (PS3.18, 10.5) to a PACS."""

    def __init__(self, settings: DicomSettings, password: str | None) -> None:
        assert settings.stow_url is not None
        self._url = settings.stow_url.rstrip("/") + "/studies"
        user = settings.stow_user
        auth = None if user is None else httpx.BasicAuth(user, password or "")
        verify = str(settings.stow_ca) if settings.stow_ca else True
        self._client = httpx.Client(timeout=_TIMEOUT, verify=verify, auth=auth)

    def __call__(self, report: bytes) -> None:
        """Send a report; see `Archive`."""
        boundary = uuid.uuid4().hex
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        try:
            answer = self._client.post(
                self._url,
                content=head + report + f"\r\n--{boundary}--\r\n".encode(),
                headers={"content-type": kind, "accept": "application/dicom+json"},
            )
        except httpx.HTTPError as error:
            raise _undelivered(type(error).__name__) from error
        if not is_kept(answer.status_code, answer.content, report):
            raise _undelivered(f"status {answer.status_code}")


class Delivery:
    """Works off the outbox in a thread of its own.

    Parameters
    ----------
    outbox : ReportOutbox
    store : CaseStore
    predict : Predicts
    archive : Archive
    explain : Explains, optional
        Without, no heat maps are sent.
    site : str
    keep_days : float
        After so many days a report is given up, with an error in the log.
    """

    def __init__(
        self,
        outbox: ReportOutbox,
        store: CaseStore,
        predict: Predicts,
        archive: Archive,
        *,
        explain: Explains | None = None,
        site: str,
        keep_days: float,
    ) -> None:
        self._outbox, self._store, self._site = outbox, store, site
        self._predict, self._archive, self._explain = predict, archive, explain
        self._keep_seconds = keep_days * _DAY
        self._waits: dict[str, tuple[float, float]] = {}
        self._cases: dict[str, str] = {}  # of what waits, so that no file is opened to be looked up
        self._woken, self._stopped = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="dicom-delivery", daemon=True)

    def start(self) -> None:
        """Start with what an earlier process left."""
        self._thread.start()

    def wake(self) -> None:
        """Say that there is something new."""
        self._woken.set()

    def stop(self) -> None:
        """Finish the report in hand, and stop."""
        self._stopped.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join()

    def work(self) -> int:
        """Try all that is due, once; return how many reports were delivered.

        What waits of a case that was withdrawn is given up at once, due or not.
        """
        delivered = 0
        waiting = self._outbox.pending()
        withdrawn = self._withdrawn(waiting)
        for identifier in waiting:
            if self._stopped.is_set():
                break
            due, wait = self._waits.get(identifier, (0.0, _FIRST_WAIT))
            if time.monotonic() < due and identifier not in withdrawn:
                continue
            try:
                delivered += self._advance(identifier)
                self._waits.pop(identifier, None)
            except Exception as error:  # one that cannot be written must not hold up the others
                self._waits[identifier] = (time.monotonic() + wait, min(2 * wait, _LONGEST_WAIT))
                # Only our own errors' codes: the text of any other may quote a patient.
                code = error.code if isinstance(error, WardroundError) else type(error).__name__
                log.warning("event=dicom-report-waits id=%s code=%s", identifier, code)
        return delivered

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._woken.clear()
            try:
                self.work()
            except Exception as error:  # the thread must live; texts may quote a patient
                log.error("event=dicom-delivery-failed %s", type(error).__name__)
            self._woken.wait(_FIRST_WAIT)

    def _withdrawn(self, waiting: list[str]) -> set[str]:
        """Return what waits of cases that were withdrawn meanwhile."""
        for taken in set(self._waits).difference(waiting):  # by another process
            del self._waits[taken]
        self._cases = {name: case for name, case in self._cases.items() if name in self._waits}
        try:
            gone = self._store.gone(self._cases.values()) if self._cases else set()
        except StoreError:  # nothing is sent without a look, so that this one may be missed
            return set()
        return {name for name, case in self._cases.items() if case in gone}

    def _advance(self, identifier: str) -> bool:
        pending = self._outbox.read(identifier)
        if pending is None:
            if self._outbox.age(identifier) > self._keep_seconds:
                log.error("event=dicom-report-given-up id=%s unreadable", identifier)
                self._outbox.remove(identifier)
            return False
        if self._gave_up_withdrawn(pending):
            return False
        self._cases[identifier] = pending.case_id
        if time.time() - pending.created > self._keep_seconds:
            self._give_up(pending, "too-old")
            return False
        if not can_be_filed(pending.context):  # no later try would find it otherwise
            self._give_up(pending, "unwritable")
            return False
        if not pending.reported:
            reported = self._report(pending)
            if reported is None or self._explain is None:
                return reported is not None
            pending = reported
        self._picture(pending)
        return True

    def _report(self, pending: Pending) -> Pending | None:
        """Write and send the report; None where it was given up."""
        if pending.report is None:
            answer = self._predict(self._image(pending))
            if answer is None:
                self._give_up(pending, "refused")
                return None
            report = write_report(answer, pending.context, site=self._site)
            pending = replace(pending, report=report)
            self._outbox.keep(pending)
        assert pending.report is not None
        if self._gave_up_withdrawn(pending):
            return None
        self._archive(pending.report)
        pending = replace(pending, report=None, reported=True)
        if self._explain is None:
            self._outbox.remove(pending.id)
        else:
            self._outbox.keep(pending)
        log.info("event=dicom-report-delivered id=%s case=%s", pending.id, pending.case_id)
        return pending

    def _picture(self, pending: Pending) -> None:
        """Write and send the heat map; where there is none to be had, the report stands alone."""
        if pending.capture is None:
            answer = None
            if self._explain is not None:
                answer = self._explain(self._image(pending))
            if answer is None:
                log.warning("event=dicom-no-heat-map id=%s case=%s", pending.id, pending.case_id)
                self._outbox.remove(pending.id)
                return
            capture = write_capture(answer, pending.context, site=self._site)
            pending = replace(pending, capture=capture)
            self._outbox.keep(pending)
        assert pending.capture is not None
        if self._gave_up_withdrawn(pending):
            return
        self._archive(pending.capture)
        self._outbox.remove(pending.id)
        log.info("event=dicom-heat-map-delivered id=%s case=%s", pending.id, pending.case_id)

    def _image(self, pending: Pending) -> bytes:
        return self._store.image_bytes(self._store.get(pending.case_id))

    def _gave_up_withdrawn(self, pending: Pending) -> bool:
        """Give up what is of a withdrawn case, whatever was written of it; tell if it is."""
        if not self._store.gone([pending.case_id]):
            return False
        self._give_up(pending, "withdrawn")
        return True

    def _give_up(self, pending: Pending, why: str) -> None:
        self._cases.pop(pending.id, None)
        log.error("event=dicom-report-given-up id=%s case=%s %s", pending.id, pending.case_id, why)
        self._outbox.remove(pending.id)


def _undelivered(how: str) -> ProcessError:
    return ProcessError(f"The PACS did not take the report ({how}).", code="dicom-pacs-away")
