"""The site's Storage SCP (PS3.4 annex B) and Verification SCP: what may come in, and by whom."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from pynetdicom import evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made from a table
    ComputedRadiographyImageStorage,
    DermoscopicPhotographyImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
    Verification,
    VLEndoscopicImageStorage,
    VLPhotographicImageStorage,
)

from client.dicom.listening import BoundedEntity, BoundedServer
from client.dicom.settings import DicomSettings
from common.errors import (
    Busy,
    ConfigurationError,
    InputRefused,
    ProcessError,
    StoreError,
    WardroundError,
)

log = logging.getLogger(__name__)

_CLASSES = (
    *(ComputedRadiographyImageStorage, DermoscopicPhotographyImageStorage),
    *(DigitalMammographyXRayImageStorageForPresentation, SecondaryCaptureImageStorage),
    *(UltrasoundImageStorage, VLEndoscopicImageStorage, VLPhotographicImageStorage),
)
# What `client.dicom.rendering` decodes. Deflated data sets are not offered.
_SYNTAXES = [
    *(ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless),
    *(JPEGBaseline8Bit, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless),
    *(JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2K),
]
# PS3.4, table B.2-1.
SUCCESS, OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000
_IDLE_SECONDS = 30


class StorageReceiver:
    """Answers C-ECHO and C-STORE of the listed callers, and nothing else.

    Parameters
    ----------
    settings : DicomSettings
    take : callable
        Gets a Part 10 file; returns once it is durably kept. Its `WardroundError` becomes the
        status of the C-STORE, with the code as Error Comment (0000,0902).

    Raises
    ------
    ConfigurationError
        If no caller is listed, or the address is not loopback and there is no TLS.
    """

    def __init__(self, settings: DicomSettings, take: Callable[[bytes], None]) -> None:
        _check(settings)
        # It logs identifiers and data sets; what matters is logged here.
        for name in ("pynetdicom", "pydicom"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        self._settings, self._take = settings, take
        self._received: dict[int, int] = {}
        self._entity = BoundedEntity(ae_title=settings.ae_title)
        self._entity.require_called_aet = True
        self._entity.require_calling_aet = list(settings.callers)
        self._entity.maximum_associations = settings.associations
        self._entity.acse_timeout = self._entity.dimse_timeout = _IDLE_SECONDS
        self._entity.network_timeout = _IDLE_SECONDS
        self._entity.add_supported_context(Verification)
        for storage in _CLASSES:
            self._entity.add_supported_context(storage, _SYNTAXES)
        self._server: Any = None

    def start(self) -> int:
        """Listen in threads; return the port.

        Raises
        ------
        ConfigurationError
            If the address is taken.
        """
        handlers: list[Any] = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_DATA_RECV, self._count),
            (evt.EVT_CONN_CLOSE, self._forget),
            (evt.EVT_REJECTED, self._rejected),
        ]
        try:
            self._server = self._entity.make_server(
                (self._settings.host, self._settings.port),
                ssl_context=_tls(self._settings),
                evt_handlers=handlers,
                server_class=BoundedServer,
            )
        except OSError as error:
            raise ConfigurationError(
                f"The DICOM port {self._settings.port} cannot be opened ({error.strerror}).",
                action="Choose another `port` in the [dicom] table of site.toml.",
            ) from error
        self._entity._servers.append(self._server)  # as AE.start_server does; shutdown takes it out
        threading.Thread(
            target=self._server.serve_forever, name="dicom-accept", daemon=True
        ).start()
        port: int = self._server.socket.getsockname()[1]
        return port

    def stop(self) -> None:
        """Close all associations and the port."""
        if self._server is not None:
            self._server.shutdown()

    def _store(self, event: evt.Event) -> Dataset:
        self._received[id(event.assoc)] = 0
        try:
            self._take(event.encoded_dataset())
        except InputRefused as refusal:
            return _status(CANNOT_UNDERSTAND, refusal)
        except (Busy, ProcessError, StoreError) as failure:
            return _status(OUT_OF_RESOURCES, failure)
        except Exception as error:  # its text may quote a patient, so nobody else may log it
            log.error("event=dicom-failed %s", type(error).__name__)
            return _status(OUT_OF_RESOURCES, WardroundError("", code="internal"))
        answer = Dataset()
        answer.Status = SUCCESS
        return answer

    def _count(self, event: evt.Event) -> None:
        """Hang up on a data set beyond the limit; pynetdicom would collect all of it first."""
        key = id(event.assoc)
        self._received[key] = self._received.get(key, 0) + len(event.data)
        if self._received[key] > self._settings.maximum_bytes + 2**20:
            log.warning("event=dicom-too-large")
            transport = event.assoc.dul.socket
            if transport is not None:
                transport.close()

    def _forget(self, event: evt.Event) -> None:
        self._received.pop(id(event.assoc), None)

    @staticmethod
    def _rejected(_event: evt.Event) -> None:
        log.warning("event=dicom-association-rejected")


def _status(code: int, error: WardroundError) -> Dataset:
    log.info("event=dicom-refused code=%s", error.code)
    answer = Dataset()
    answer.Status = code
    answer.ErrorComment = error.code[:64]
    return answer


def _check(settings: DicomSettings) -> None:
    if not settings.callers:
        raise ConfigurationError(
            "No DICOM sender is allowed.",
            action="List the AE titles that may send as `callers` in the [dicom] table.",
            code="dicom-no-callers",
        )
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        raise ConfigurationError("tls_certificate and tls_key go together; one is missing.")
    loopback = settings.host in ("127.0.0.1", "::1", "localhost")
    if not loopback and settings.tls_certificate is None and not settings.allow_plain:
        raise ConfigurationError(
            f"The DICOM receiver will not bind to {settings.host} without TLS.",
            meaning="Patients' images would cross the network in the clear.",
            action="Set tls_certificate and tls_key, or allow_plain on a trusted network.",
            code="exposed-without-tls",
        )


def _tls(settings: DicomSettings) -> ssl.SSLContext | None:
    if settings.tls_certificate is None:
        return None
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(settings.tls_certificate, settings.tls_key)
        if settings.tls_ca is not None:
            context.load_verify_locations(settings.tls_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:
        raise ConfigurationError(
            f"The DICOM receiver's certificates cannot be read ({type(error).__name__})."
        ) from error
    return context
