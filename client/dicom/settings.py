"""The ``[dicom]`` and ``[dicomweb]`` tables of ``site.toml``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

AeTitle = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_. -]{0,15}$")]


class DicomSettings(BaseModel):
    """How this site receives DICOM images, and where reports go.

    ``callers`` are the AE titles that may send; none may without. AE titles are claims: only TLS
    with ``tls_ca`` (senders show a certificate) proves who sends. ``modalities`` replaces what
    the task's name implies. ``burned_in`` says what becomes of images whose header does not rule
    out burned-in text. Sizes are in bytes. ``service_url`` is the inference service's, by default
    where this site's own listens; ``service_ca`` a CA certificate for it. ``stow_url`` is the
    PACS' DICOMweb root; reports are not sent without. Its password is read from
    ``keys/pacs-password``. ``keep_days`` is for how long an undelivered report is tried again.
    ``heat_maps`` sends a Grad-CAM picture as a secondary capture after each report.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ae_title: AeTitle = "WARDROUND"
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 11112
    callers: tuple[AeTitle, ...] = ()
    associations: Annotated[int, Field(ge=1, le=64)] = 4
    modalities: tuple[str, ...] = ()
    burned_in: Literal["flag", "refuse"] = "flag"
    maximum_bytes: Annotated[int, Field(ge=1024)] = 128 * 1024 * 1024
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_ca: Path | None = None
    allow_plain: bool = False
    service_url: str | None = None
    service_ca: Path | None = None
    stow_url: str | None = None
    stow_user: str | None = None
    stow_ca: Path | None = None
    keep_days: Annotated[float, Field(gt=0)] = 14.0
    heat_maps: bool = False


class DicomwebSettings(BaseModel):
    """Where this site fetches new images by itself: QIDO-RS and WADO-RS of a PACS.

    ``url`` is the PACS' DICOMweb root; nothing is fetched without. Beyond loopback it must be
    https, checked against ``ca`` (PEM) where that is set, unless ``allow_plain`` says that the
    network itself is trusted. ``user`` signs in with the password in ``keys/dicomweb-password``;
    a bearer token is read from ``keys/dicomweb-token`` where that file is there. Every
    ``poll_seconds`` the studies of the last ``look_back_days`` are asked for images of the task's
    modalities that were not fetched yet. ``seconds`` is for how long one request may take.
    ``[dicom] maximum_bytes`` bounds each image.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Annotated[str | None, Field(pattern=r"^https?://[^\s@?#]+$")] = None
    user: str | None = None
    ca: Path | None = None
    allow_plain: bool = False
    poll_seconds: Annotated[float, Field(gt=0)] = 30.0
    look_back_days: Annotated[int, Field(ge=0, le=366)] = 7
    seconds: Annotated[float, Field(gt=0)] = 60.0
