"""The ``[dicom]`` table of ``site.toml``."""

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
