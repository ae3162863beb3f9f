"""Whatever is done to an audit log is found, on both kinds of database."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy import Engine, MetaData, text

from common.anchor import Anchor, Head
from common.audit import AuditLog
from common.audit_chain import find_faults, verify
from common.audit_entries import (
    ENTRY,
    CaseViewed,
    Entry,
    Left,
    PlanDeclined,
    PredictionMade,
    Unaudited,
)
from common.audit_lines import GENESIS, AuditLine, audit_table
from common.database import open_database
from common.errors import StoreError

METADATA = MetaData()
TABLE = audit_table(METADATA)


def digest_of(value: object) -> str:
    return hashlib.sha256(str(value).encode()).hexdigest()


def prediction(number: int) -> PredictionMade:
    return PredictionMade(request_id=f"r{number}", version=1, model_digest=digest_of("model"))


def left(number: int) -> Left:
    return Left(
        contents=("update", "receipt"),
        destination="coordinator.example:8443",
        bytes=number,
        sha256=digest_of(number),
        campaign="spring",
        round=1,
        nonce=digest_of(f"nonce {number}"),
        update_digest=digest_of(f"update {number}"),
        epsilon_campaign=0.1 * number,
        epsilon_life=0.2 * number,
    )


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_database(database_url)
    METADATA.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def log(engine: Engine, tmp_path: Path) -> AuditLog:
    return AuditLog(engine, TABLE, anchor=Anchor(tmp_path / "head.json"))


def filled(log: AuditLog, lines: int = 5) -> AuditLog:
    for number in range(1, lines + 1):
        log.append(prediction(number) if number % 2 else left(number))
    return log


def change(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement))


def test_a_log_comes_back_as_it_was_written(log: AuditLog) -> None:
    log.append(left(1), prediction(2))
    log.append(PlanDeclined(code="budget-exhausted"))
    assert [line.entry() for line in log.lines()] == [
        left(1),
        prediction(2),
        PlanDeclined(code="budget-exhausted"),
    ]
    assert [line.sequence for line in log.lines()] == [1, 2, 3]
    assert [line.sequence for line in log.lines(kinds=("left", "plan-refused"))] == [1, 3]
    newest = log.newest("left")
    assert newest is not None
    assert newest.sequence == 1
    assert log.newest("unaudited") is None
    assert verify(log) == ()


def test_long_logs_are_read_in_parts(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.audit.LINES_AT_ONCE", 3)
    filled(log, 10)
    assert [line.sequence for line in log.lines()] == list(range(1, 11))
    assert [line.sequence for line in log.lines(kinds=("left",), after=2)] == [4, 6, 8, 10]


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("UPDATE audit_log SET body = replace(body, 'r3', 'r4') WHERE sequence = 3", "changed"),
        ("UPDATE audit_log SET kind = 'left' WHERE sequence = 3", "changed"),
        ("UPDATE audit_log SET written_at = '2020' WHERE sequence = 3", "changed"),
        ("UPDATE audit_log SET previous = digest WHERE sequence = 3", "changed"),
        ("UPDATE audit_log SET digest = previous WHERE sequence = 3", "changed"),
        ("DELETE FROM audit_log WHERE sequence = 1", "missing"),
        ("DELETE FROM audit_log WHERE sequence IN (2, 3)", "missing"),
        ("DELETE FROM audit_log WHERE sequence = 5", "cut"),
        ("DELETE FROM audit_log", "cut"),
        ("UPDATE audit_log SET sequence = 9 WHERE sequence = 3", "missing"),
        ("UPDATE audit_log SET sequence = -3 WHERE sequence = 3", "moved"),
    ],
)
def test_every_change_is_found_and_named(
    log: AuditLog, engine: Engine, statement: str, code: str
) -> None:
    filled(log)
    change(engine, statement)
    faults = verify(log)
    assert any(code in fault.code for fault in faults), faults
    assert all(fault.text.endswith(".") for fault in faults)


@pytest.mark.parametrize("statement", ["DELETE FROM audit_log WHERE sequence > 3"])
def test_nothing_is_written_after_a_tail_that_was_cut_off(
    log: AuditLog, engine: Engine, statement: str
) -> None:
    filled(log)
    change(engine, statement)
    with pytest.raises(StoreError) as caught:
        log.append(prediction(6))
    assert caught.value.code == "audit-damaged"
    assert len(list(log.lines())) == 3


def test_a_rewritten_log_is_not_the_one_that_the_anchor_remembers(
    log: AuditLog, engine: Engine
) -> None:
    """Somebody who may write to the database recomputes every digest after the change."""
    filled(log)
    change(engine, "DELETE FROM audit_log")
    forged = AuditLog(engine, TABLE)
    filled(forged, 3)
    forged.append(left(7), left(8))
    assert verify(forged) == ()
    assert [fault.code for fault in verify(log)] == ["log-rewritten"]
    with pytest.raises(StoreError):
        log.append(prediction(6))


def test_an_unreadable_anchor_is_a_fault(log: AuditLog, tmp_path: Path) -> None:
    filled(log)
    (tmp_path / "head.json").write_text("{}")
    assert [fault.code for fault in verify(log)] == ["log-rewritten"]
    with pytest.raises(StoreError):
        log.append(prediction(6))


def test_an_anchor_that_lags_behind_is_harmless(
    log: AuditLog, engine: Engine, tmp_path: Path
) -> None:
    filled(log)
    AuditLog(engine, TABLE).append(prediction(6))  # as if killed before the anchor
    assert verify(log) == ()
    log.append(prediction(7))
    assert verify(log) == ()
    assert Anchor(tmp_path / "head.json").read() == Head(
        sequence=7, digest=list(log.lines())[-1].digest
    )


def test_writers_at_once_make_one_chain(database_url: str, tmp_path: Path) -> None:
    METADATA.create_all(open_database(database_url))

    def write(writer: int) -> None:
        own = open_database(database_url)
        log = AuditLog(own, TABLE, anchor=Anchor(tmp_path / "head.json"))
        for number in range(5):
            log.append(prediction(10 * writer + number), left(number))
        own.dispose()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(6)))
    engine = open_database(database_url)
    log = AuditLog(engine, TABLE, anchor=Anchor(tmp_path / "head.json"))
    assert verify(log) == ()
    assert len(list(log.lines())) == 60
    engine.dispose()


def _write_for_ever(url: str, anchor: Path) -> None:
    log = AuditLog(open_database(url), TABLE, anchor=Anchor(anchor))
    while True:
        log.append(left(1), prediction(1))


def test_a_writer_that_is_killed_leaves_a_whole_log(
    sqlite_database_url: str, tmp_path: Path
) -> None:
    engine = open_database(sqlite_database_url)
    METADATA.create_all(engine)
    log = AuditLog(engine, TABLE, anchor=Anchor(tmp_path / "head.json"))
    context = multiprocessing.get_context("fork")
    for pause in (0.05, 0.11, 0.02, 0.07):
        before = len(list(log.lines()))
        writer = context.Process(
            target=_write_for_ever, args=(sqlite_database_url, tmp_path / "head.json")
        )
        writer.start()
        assert writer.pid is not None
        while len(list(log.lines())) < before + 4:
            time.sleep(0.01)
        time.sleep(pause)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        assert verify(log) == ()
        assert len(list(log.lines())) % 2 == 0  # what was appended together is there together
    log.append(prediction(1))
    assert verify(log) == ()
    engine.dispose()


def test_without_a_database_there_is_a_clear_error(tmp_path: Path) -> None:
    log = AuditLog(open_database(f"sqlite:///{tmp_path / 'empty.db'}"), TABLE)
    for action in (lambda: log.append(prediction(1)), lambda: verify(log)):
        with pytest.raises(StoreError) as caught:
            action()
        assert caught.value.code == "audit-unavailable"


@pytest.mark.parametrize(
    "body",
    [
        '{"kind": "prediction", "request_id": "Jane Doe", "version": 1, "model_digest": "%s"}',
        '{"kind": "prediction", "request_id": "r", "version": 1, "model_digest": "%s",'
        ' "patient": "jane-doe"}',
        '{"kind": "plan-refused", "code": "Traceback: /data/jane.png"}',
        '{"kind": "note", "text": "%s"}',
        '{"kind": "case-viewed", "case": "Jane Doe", "part": "case", "by": "anna"}',
        '{"kind": "case-viewed", "case": "0", "part": "nevus", "by": "anna"}',
        '{"kind": "patient-withdrawn", "cases": 2, "patient": "%s"}',
    ],
)
def test_entries_have_no_room_for_anything_else(body: str) -> None:
    with pytest.raises(ValidationError):
        ENTRY.validate_json(body.replace("%s", "0" * 64))


# Any edit, drop, swap, copy or cut of a chain in memory.

ENTRIES = st.lists(
    st.one_of(
        st.builds(prediction, st.integers(0, 99)),
        st.builds(left, st.integers(0, 99)),
        st.builds(
            lambda n, m: Unaudited(predictions=n, views=m), st.integers(0, 99), st.integers(0, 9)
        ),
        st.builds(lambda n: CaseViewed(case=f"{n:032x}", part="case", by="a"), st.integers(0)),
    ),
    min_size=1,
    max_size=8,
)
TEXTS = ("kind", "written_at", "body", "previous", "digest")


def chain(entries: list[Entry]) -> list[AuditLine]:
    lines: list[AuditLine] = []
    for number, entry in enumerate(entries, start=1):
        previous = lines[-1].digest if lines else GENESIS
        moment = datetime(2026, 1, 1, 0, 0, number, tzinfo=UTC).isoformat()
        draft = AuditLine(number, entry.kind, moment, entry.model_dump_json(), previous, "")
        lines.append(replace(draft, digest=draft.expected_digest()))
    return lines


@given(entries=ENTRIES, data=st.data())
def test_no_tampering_goes_unnoticed(entries: list[Entry], data: st.DataObject) -> None:
    lines = chain(entries)
    head = Head(sequence=len(lines), digest=lines[-1].digest)
    assert list(find_faults(lines, head)) == []
    changed = list(lines)
    index = data.draw(st.integers(0, len(lines) - 1))
    how = data.draw(st.sampled_from(["edit", "reseal", "drop", "swap", "copy", "cut", "renumber"]))
    if how in ("edit", "reseal"):
        field = data.draw(st.sampled_from(TEXTS))
        value = data.draw(st.text(max_size=70))
        changed[index] = replace(lines[index], **{field: value})  # type: ignore[arg-type]
        if how == "reseal":  # the forger recomputes this line's own digest
            changed[index] = replace(changed[index], digest=changed[index].expected_digest())
    elif how == "drop":
        del changed[index]
    elif how == "swap":
        other = data.draw(st.integers(0, len(lines) - 1))
        changed[index], changed[other] = changed[other], changed[index]
    elif how == "copy":
        changed.insert(data.draw(st.integers(0, len(lines))), lines[index])
    elif how == "cut":
        changed = changed[:index]
    else:
        number = data.draw(st.integers(-3, 12))
        changed[index] = replace(lines[index], sequence=number)
    faults = list(find_faults(changed, head))
    assert (faults == []) == (changed == lines)


@pytest.mark.parametrize("index", range(5))
def test_a_line_that_was_rewritten_with_its_own_digest_breaks_the_chain(index: int) -> None:
    """The forger gives one line other, valid content: the next line tells, or the anchor."""
    lines = chain([left(number) for number in range(1, 6)])
    head = Head(sequence=5, digest=lines[-1].digest)
    other = replace(lines[index], body=left(99).model_dump_json())
    lines[index] = replace(other, digest=other.expected_digest())
    (fault,) = find_faults(lines, head)
    expected = ("log-rewritten", 5) if index == 4 else ("line-moved", index + 2)
    assert (fault.code, fault.sequence) == expected
