"""What the status counts."""

from __future__ import annotations

from pathlib import Path

from client.status.reader import _reports
from tests.client.serving import site_settings


def test_reports_alone_are_counted_as_waiting(tmp_path: Path) -> None:
    settings = site_settings(tmp_path)
    assert _reports(settings) is None
    dicom = settings.dicom.model_copy(update={"stow_url": "http://127.0.0.1:9"})
    settings = settings.model_copy(update={"dicom": dicom})
    assert _reports(settings) == 0
    folder = settings.data / "dicom"
    folder.mkdir()
    # As the outbox, a writer that was killed and the puller leave them.
    for name in ("a.report", "b.report", ".c.report.draft", "pulled.json", "pulled.lock"):
        (folder / name).touch()
    assert _reports(settings) == 2
