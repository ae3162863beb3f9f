"""A site's DICOM process: receives images, keeps them as cases, and reports on them to the PACS."""

from __future__ import annotations

import logging
import time

from pydicom.uid import UID

from client.cases.pseudonyms import Pseudonyms
from client.cases.store import CaseStore, DuplicateCase
from client.dicom.delivery import Delivery, Predicts, ServicePredictor, StowArchive
from client.dicom.modalities import make_intake
from client.dicom.outbox import Pending, ReportOutbox
from client.dicom.picture import DicomPicture
from client.dicom.receiver import StorageReceiver
from client.dicom.refusals import refused, unreadable
from client.settings import SiteSettings
from client.site_recipes import own_recipe
from common.errors import ConfigurationError

log = logging.getLogger(__name__)


class DicomStation:
    """Receiver, decoder, case store and delivery of one site, put together.

    Parameters
    ----------
    settings : SiteSettings
    predict : Predicts, optional
        The site's inference service by default.

    Raises
    ------
    ConfigurationError, StoreError
        If the site's folder, database or settings cannot be used.
    """

    def __init__(self, settings: SiteSettings, *, predict: Predicts | None = None) -> None:
        self._settings, table = settings, settings.dicom
        self.receiver = StorageReceiver(table, self.take)
        self.store = CaseStore.open(settings)
        self.intake = make_intake(settings, own_recipe(settings, settings.task))
        pseudonyms = Pseudonyms.read(settings.keys / "pseudonyms")
        self.outbox = ReportOutbox(settings.data / "dicom", pseudonyms)
        self.delivery: Delivery | None = None
        if table.stow_url is not None:
            self.delivery = Delivery(
                self.outbox,
                self.store,
                predict or ServicePredictor(_service_url(settings), table.service_ca),
                StowArchive(table, _password(settings)),
                site=settings.name,
                keep_days=table.keep_days,
            )

    def start(self) -> int:
        """Start receiving and delivering; return the port."""
        if self.delivery is not None:
            self.delivery.start()
        port = self.receiver.start()
        log.info("event=dicom-listening title=%s port=%d", self._settings.dicom.ae_title, port)
        return port

    def stop(self) -> None:
        """Stop receiving, and finish what is in hand; what is not delivered waits."""
        self.receiver.stop()
        if self.delivery is not None:
            self.delivery.stop()
        self.intake.close()
        self.store.close()

    def take(self, data: bytes) -> None:
        """Keep a received file as a waiting case, and its report as something to be delivered.

        Both are durable when this returns. The same image again changes nothing.

        Raises
        ------
        InputRefused, Busy, StoreError
            Then nothing was kept, or the sender is to send it again.
        """
        picture = self.intake.take(data).header
        if picture is None:
            raise unreadable("neither Part 10 nor a bare data set")
        _check_filing(picture)
        try:
            case = self.store.add(
                picture.png,
                task=self._settings.task,
                patient_id=picture.patient_id,
                label=None,
                source="dicom",
                age=picture.age,
                sex=picture.sex,
            )
        except DuplicateCase as duplicate:
            case = duplicate.case
        log.info("event=dicom-stored case=%s flags=%s", case.id, ",".join(picture.flags) or "-")
        if self.delivery is not None:
            identifier = self.outbox.id_of(picture.instance)
            if identifier not in self.outbox.pending():
                self.outbox.keep(Pending(identifier, case.id, time.time(), picture.context))
            self.delivery.wake()


def _check_filing(picture: DicomPicture) -> None:
    for name in ("StudyInstanceUID", "SOPInstanceUID", "SOPClassUID"):
        if not UID(picture.context.values.get(name, "")).is_valid:
            raise refused("identity", f"{name} is absent or malformed.")


def _service_url(settings: SiteSettings) -> str:
    scheme = "http" if settings.tls_certificate is None else "https"
    return settings.dicom.service_url or f"{scheme}://{settings.host}:{settings.port}"


def _password(settings: SiteSettings) -> str | None:
    if settings.dicom.stow_user is None:
        return None
    path = settings.keys / "pacs-password"
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"The PACS password {path} cannot be read ({type(error).__name__}).",
            action="Write it there, mode 0600, or leave stow_user out of site.toml.",
        ) from error
