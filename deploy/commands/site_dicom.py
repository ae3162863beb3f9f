"""`wardround site dicom`: receive DICOM images, and report on them to the PACS."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer


def dicom(
    site: Annotated[
        Path, typer.Option("--site", envvar="WARDROUND_SITE_FOLDER", help="The site's folder.")
    ] = Path(),
) -> None:
    """Receive images by DICOM C-STORE until stopped, beside the inference service.

    Every image is de-identified and kept as a case that waits for its label; where the [dicom]
    table of site.toml names a PACS, the model's answer goes there as a structured report.
    """
    from client.dicom.station import DicomStation
    from client.main import configure_logging
    from client.settings import SiteSettings

    configure_logging()
    station = DicomStation(SiteSettings.read(site))
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    port = station.start()
    typer.echo(f"Receiving DICOM images on port {port}.")
    stopped.wait()
    station.stop()
