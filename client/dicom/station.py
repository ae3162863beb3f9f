"""A site's DICOM process: receives and fetches images, keeps them as cases, reports on them."""

from __future__ import annotations

import logging
import time

from pydicom.uid import UID

from client.cases.pseudonyms import Pseudonyms
from client.cases.store import CaseStore, DuplicateCase
from client.dicom.cursor import PullCursor
from client.dicom.delivery import Delivery, Predicts, StowArchive
from client.dicom.modalities import accepted_modalities, make_intake
from client.dicom.outbox import Pending, ReportOutbox
from client.dicom.picture import DicomPicture
from client.dicom.pull import Puller
from client.dicom.receiver import StorageReceiver
from client.dicom.refusals import refused, unreadable
from client.dicom.service import ServiceExplainer, ServicePredictor, site_service
from client.dicom.web import DicomwebSource
from client.settings import SiteSettings
from client.site_recipes import own_recipe
from common.errors import ConfigurationError

log = logging.getLogger(__name__)


class DicomStation:
    """Receiver, puller, decoder, case store and delivery of one site, put together.

    It receives where ``[dicom]`` names a caller, fetches where ``[dicomweb]`` names a PACS, and
    reports where ``[dicom] stow_url`` does.

    Parameters
    ----------
    settings : SiteSettings
    predict : Predicts, optional
        The site's inference service by default.
    deliver : bool, default True
        Whether reports are made and sent; without, they wait for the process that does.

    Raises
    ------
    ConfigurationError, StoreError
        If the site's folder, database or settings cannot be used, or it has nothing to do.
    """

    def __init__(
        self, settings: SiteSettings, *, predict: Predicts | None = None, deliver: bool = True
    ) -> None:
        self._settings, table = settings, settings.dicom
        self.receiver: StorageReceiver | None = None
        if table.callers or settings.dicomweb.url is None:
            self.receiver = StorageReceiver(table, self.take)
        self.store = CaseStore.open(settings)
        self.intake = make_intake(settings, own_recipe(settings, settings.task))
        pseudonyms = Pseudonyms.read(settings.keys / "pseudonyms")
        self.outbox = ReportOutbox(settings.data / "dicom", pseudonyms)
        self.puller = None if settings.dicomweb.url is None else self._make_puller()
        reports = deliver and table.stow_url is not None
        self.delivery = self._make_delivery(predict) if reports else None

    def start(self) -> int | None:
        """Start all that the settings ask for; return the port, None where nothing is received."""
        if self.delivery is not None:
            self.delivery.start()
        if self.puller is not None:
            self.puller.start()
            log.info("event=dicomweb-polling")
        if self.receiver is None:
            return None
        port = self.receiver.start()
        log.info("event=dicom-listening title=%s port=%d", self._settings.dicom.ae_title, port)
        return port

    def stop(self) -> None:
        """Stop receiving, and finish what is in hand; what is not delivered waits."""
        if self.receiver is not None:
            self.receiver.stop()
        if self.puller is not None:
            self.puller.stop()
        if self.delivery is not None:
            self.delivery.stop()
        self.intake.close()
        self.store.close()

    def take(self, data: bytes) -> None:
        """Keep a received file as a waiting case, and its report as something to be delivered.

        Both are durable when this returns. The same image again changes nothing.

        Raises
        ------
        InputRefused, Busy, ProcessError, StoreError
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
                flags=picture.flags,
                look_for_writing=True,
            )
        except DuplicateCase as duplicate:
            case = duplicate.case
        log.info("event=dicom-stored case=%s flags=%s", case.id, ",".join(picture.flags) or "-")
        if self._settings.dicom.stow_url is not None:
            identifier = self.outbox.id_of(picture.instance)
            if not self.outbox.holds(identifier):
                self.outbox.keep(Pending(identifier, case.id, time.time(), picture.context))
        if self.delivery is not None:
            self.delivery.wake()

    def _make_delivery(self, predict: Predicts | None) -> Delivery:
        settings, table = self._settings, self._settings.dicom
        service = site_service(settings) if predict is None else None
        asked = predict or (ServicePredictor(service) if service is not None else None)
        assert asked is not None
        return Delivery(
            self.outbox,
            self.store,
            asked,
            StowArchive(table, _password(settings)),
            explain=ServiceExplainer(service) if service and table.heat_maps else None,
            site=settings.name,
            keep_days=table.keep_days,
        )

    def _make_puller(self) -> Puller:
        settings, table = self._settings, self._settings.dicomweb
        recipe, chosen = own_recipe(settings, settings.task), settings.dicom.modalities
        folder = settings.data / "dicom"
        return Puller(
            DicomwebSource(table, settings.keys, maximum_bytes=settings.dicom.maximum_bytes),
            PullCursor(folder / "pulled.json", keep_days=table.look_back_days + 7),
            take=self.take,
            id_of=self.outbox.id_of,
            modalities=accepted_modalities(recipe, chosen) if recipe else chosen or None,
            poll_seconds=table.poll_seconds,
        )


def _check_filing(picture: DicomPicture) -> None:
    for name in ("StudyInstanceUID", "SOPInstanceUID", "SOPClassUID"):
        if not UID(picture.context.values.get(name, "")).is_valid:
            raise refused("identity", f"{name} is absent or malformed.")


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
