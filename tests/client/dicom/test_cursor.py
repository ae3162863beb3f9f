"""What was fetched is remembered: for as long as it is listed, by one process at a time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from client.dicom.cursor import PullCursor
from client.dicom.pull import Pulled
from common.errors import Busy
from tests.client.dicom.fetching import Inbox, image, puller
from tests.client.dicom.pacs import FakePacs


def test_a_damaged_cursor_costs_a_second_fetch_and_no_more(pacs: FakePacs, tmp_path: Path) -> None:
    inbox = Inbox()
    pacs.put(image())
    puller(pacs, tmp_path, inbox).poll()
    (tmp_path / "pulled.json").write_bytes(b"{half")
    assert puller(pacs, tmp_path, inbox).poll() == Pulled(stored=1)


def test_an_image_that_is_listed_no_more_is_forgotten_later(tmp_path: Path) -> None:
    cursor = PullCursor(tmp_path / "pulled.json", keep_days=1e-7)
    with cursor.open():
        cursor.note("a", "stored")
        time.sleep(0.02)
    with cursor.open():
        assert not cursor.knows("a")


def test_two_processes_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.dicom.cursor._WAIT_SECONDS", 0.1)
    first, second = (PullCursor(tmp_path / "pulled.json", keep_days=1) for _ in range(2))
    with first.open(), pytest.raises(Busy), second.open():
        pass
    with second.open():
        pass
