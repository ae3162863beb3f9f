"""Nothing of a withdrawn case goes to the PACS or stays on the disk, whatever was written of it."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from client.dicom.outbox import Pending
from client.dicom.picture import DicomContext
from client.withdrawal import withdraw_case
from common.errors import ProcessError, StoreError
from tests.client.dicom.delivering import ANSWER, EXPLAINED, Asked, Pacs, Site, kinds
from tests.client.serving import picture

ONE, OTHER = "a" * 32, "b" * 32
AWAY = ProcessError("", code="dicom-service-away")


def add_other(site: Site, context: DicomContext) -> str:
    """Have another patient's image on its way, too; return its case."""
    case = site.store.add(picture(5), task="dermoscopy", patient_id="2", label=None, source="dicom")
    site.outbox.keep(Pending(OTHER, case.id, time.time(), context))
    return case.id


def test_a_report_that_is_written_already_is_not_sent(site: Site) -> None:
    pacs = Pacs(away={1})
    delivery = site.delivery(None, pacs)
    delivery.work()
    written = site.outbox.read(ONE)
    assert written is not None
    assert written.report is not None
    site.store.withdraw_case(site.case_id)
    assert delivery.work() == 0
    assert (kinds(pacs), site.outbox.pending()) == ([], [])


def test_a_heat_map_that_is_drawn_already_is_not_sent(site: Site) -> None:
    pacs = Pacs(away={2})
    delivery = site.delivery(Asked([EXPLAINED]), pacs)
    delivery.work()
    drawn = site.outbox.read(ONE)
    assert drawn is not None
    assert drawn.capture is not None
    site.store.withdraw_case(site.case_id)
    delivery.work()
    assert (kinds(pacs), site.outbox.pending()) == (["SR"], [])


@pytest.mark.parametrize("explains", [False, True])
def test_a_case_that_is_withdrawn_while_the_model_is_asked_is_not_sent(
    site: Site, explains: bool
) -> None:
    class Meanwhile(Asked):
        def __call__(self, image: bytes) -> object:
            site.store.withdraw_case(site.case_id)
            return super().__call__(image)

    pacs = Pacs()
    explain: Asked = Meanwhile([EXPLAINED]) if explains else Asked([EXPLAINED])
    predict: Asked = Asked([ANSWER]) if explains else Meanwhile([ANSWER])
    site.delivery(explain, pacs, predict).work()
    assert (kinds(pacs), site.outbox.pending()) == (["SR"] if explains else [], [])


def test_what_waits_for_its_next_try_goes_at_once(site: Site, context: DicomContext) -> None:
    add_other(site, context)
    delivery = site.delivery(None, Pacs(), Asked([AWAY]))
    delivery._waits = {}
    delivery.work()
    assert set(delivery._waits) == {ONE, OTHER}
    delivery._waits = dict.fromkeys((ONE, OTHER), (time.monotonic() + 300.0, 300.0))
    site.store.withdraw_case(site.case_id)
    delivery.work()
    assert site.outbox.pending() == [OTHER], "and the other patient's waits on"
    assert set(delivery._waits) == {OTHER}


def test_what_another_process_took_waits_no_more(site: Site) -> None:
    delivery = site.delivery(None, Pacs(), Asked([AWAY]))
    delivery._waits = {}
    delivery.work()
    assert (set(delivery._waits), set(delivery._cases)) == ({ONE}, {ONE})
    withdraw_case(site.settings, site.case_id)
    delivery.work()
    assert (delivery._waits, delivery._cases) == ({}, {})


def test_one_that_cannot_be_deleted_is_not_tried_each_second(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(1, "Operation not permitted")

    pacs = Pacs()
    delivery = site.delivery(None, pacs, Asked([AWAY]))
    delivery._waits = {}
    delivery.work()
    site.store.withdraw_case(site.case_id)
    monkeypatch.setattr(Path, "unlink", refuse)
    caplog.clear()
    for _ in range(5):
        delivery.work()
    assert caplog.text.count("dicom-report-waits") == 1
    assert kinds(pacs) == []


def test_while_the_cases_cannot_be_read_nothing_is_sent(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_ids: object) -> set[str]:
        raise StoreError("")

    pacs = Pacs(away={1})
    delivery = site.delivery(None, pacs)
    delivery.work()
    with monkeypatch.context() as patch:
        patch.setattr(site.store, "gone", away)
        assert delivery.work() == 0
    assert (kinds(pacs), site.outbox.pending()) == ([], [ONE])
    assert delivery.work() == 1


def test_without_the_dicom_process_the_withdrawal_takes_the_files(
    site: Site, context: DicomContext, caplog: pytest.LogCaptureFixture
) -> None:
    add_other(site, context)
    site.delivery(None, Pacs(away={1, 2})).work()
    (site.outbox._folder / f"{'c' * 32}.report").write_bytes(b"damaged")
    assert withdraw_case(site.settings, site.case_id).unfinished == ()
    assert set(site.outbox.pending()) == {OTHER, "c" * 32}


def test_a_file_that_another_process_took_meanwhile_is_no_damaged_one(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        assert site.outbox.read("d" * 32) is None
    assert caplog.text == ""


def test_a_site_without_dicom_gets_no_folder_of_it(site: Site) -> None:
    site.outbox.remove(ONE)
    site.outbox._folder.rmdir()
    assert withdraw_case(site.settings, site.case_id).unfinished == ()
    assert not site.outbox._folder.exists()
