"""`wardround site dicom`: receive and fetch DICOM images, and report on them to the PACS."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import typer

from deploy.commands.flags import Site

app = typer.Typer(invoke_without_command=True)


@app.callback()
def dicom(context: typer.Context, site: Site = Path()) -> None:
    """Receive and fetch DICOM images until stopped, beside the inference service.

    They are received by C-STORE where the [dicom] table of site.toml lists callers, and fetched
    by DICOMweb where the [dicomweb] table names a PACS. Every image is de-identified and kept as
    a case that waits for its label; where [dicom] names a PACS for them, the model's answers go
    there as structured reports.
    """
    if context.invoked_subcommand is not None:
        return
    from client.dicom.station import DicomStation
    from client.main import configure_logging
    from client.settings import SiteSettings

    configure_logging()
    station = DicomStation(SiteSettings.read(site))
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    port = station.start()
    fetches = "" if station.puller is None else " Fetching images from the PACS."
    receives = "" if port is None else f"Receiving DICOM images on port {port}."
    typer.echo(f"{receives}{fetches}".strip())
    stopped.wait()
    station.stop()


@app.command("pull")
def pull(site: Site = Path()) -> None:
    """Fetch once what is new in the PACS of the [dicomweb] table, and say what came of it."""
    from client.dicom.station import DicomStation
    from client.main import configure_logging
    from client.settings import SiteSettings
    from common.errors import ConfigurationError

    configure_logging()
    station = DicomStation(SiteSettings.read(site), deliver=False)
    try:
        if station.puller is None:
            raise ConfigurationError(
                "No PACS is named to fetch images from.",
                action="Set url in the [dicomweb] table of site.toml.",
                code="dicomweb-no-url",
            )
        done = station.puller.poll()
    finally:
        station.stop()
    typer.echo(
        f"{done.stored} taken in, {done.refused} refused, {done.failed} left for the next time, "
        f"{done.known} known already."
    )
