"""A PACS, and a site with one image on its way to a report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.cases.pseudonyms import Pseudonyms
from client.cases.store import CaseStore
from client.dicom.decoding import decode_dicom
from client.dicom.outbox import Pending, ReportOutbox
from client.dicom.picture import DicomContext
from tests.client.dicom.delivering import Site
from tests.client.dicom.files import NAME, dataset, file_bytes, planted
from tests.client.dicom.pacs import FakePacs, fake_pacs
from tests.client.serving import picture, site_settings


@pytest.fixture
def pacs() -> Iterator[FakePacs]:
    with fake_pacs() as made:
        yield made


@pytest.fixture
def context() -> DicomContext:
    made = planted(dataset(BurnedInAnnotation="NO", PatientName=NAME))
    return decode_dicom(file_bytes(made), modalities=None).context


@pytest.fixture
def site(tmp_path: Path, context: DicomContext) -> Iterator[Site]:
    settings = site_settings(tmp_path)
    store = CaseStore.open(settings)
    case = store.add(picture(), task="dermoscopy", patient_id="1", label=None, source="dicom")
    outbox = ReportOutbox(settings.data / "dicom", Pseudonyms.read(settings.keys / "pseudonyms"))
    outbox.keep(Pending("a" * 32, case.id, time.time(), context))
    yield Site(settings, store, outbox, case.id)
    store.close()
