"""Every prediction is written down; none is lost because the log cannot be written."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from client import audit_writer
from client.audit import open_site_audit
from client.audit_writer import AuditWriter
from client.releases.cache import LocalRelease
from client.releases.decisions import ReleaseDecision
from client.settings import SiteSettings
from common.anchor import Anchor
from common.audit import AuditLog
from common.audit_chain import verify
from common.audit_entries import (
    CasePart,
    CaseViewed,
    Entry,
    PredictionMade,
    ReleaseDecided,
    ReleaseInstalled,
    Unaudited,
)
from common.audit_lines import AuditLine
from common.errors import StoreError
from tests.client.serving import FakeReleases, picture, release, served_site, site_settings


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> LocalRelease:
    return release(tmp_path_factory.mktemp("releases"), 1)


@pytest.fixture
def settings(tmp_path: Path) -> SiteSettings:
    return site_settings(tmp_path)


class TroubledLog(AuditLog):
    """A log that counts its transactions, and can be slow or out of order."""

    trouble = False
    transactions = 0
    pause = 0.0

    def append(self, *entries: Entry, remember: bool = True) -> tuple[AuditLine, ...]:
        time.sleep(self.pause)
        if self.trouble:
            raise StoreError("The disk is full.", code="disk-full")
        self.transactions += 1
        return super().append(*entries, remember=remember)


@pytest.fixture
def log(settings: SiteSettings) -> Iterator[TroubledLog]:
    with open_site_audit(settings) as audit:
        yield TroubledLog(audit._engine, audit._table, anchor=audit._anchor)


@pytest.fixture
def writer(log: TroubledLog) -> Iterator[AuditWriter]:
    writer = AuditWriter(log, retry_seconds=0.05)
    writer.start()
    yield writer
    writer.close()


def entries(log: AuditLog) -> list[Entry]:
    assert verify(log) == ()
    return [line.entry() for line in log.lines()]


def predict(writer: AuditWriter, first: LocalRelease, *names: str) -> None:
    async def all_at_once() -> None:
        await asyncio.gather(*(writer.prediction(first.manifest, name) for name in names))

    asyncio.run(all_at_once())


def wait_for(condition: object) -> None:
    deadline = time.monotonic() + 20
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_prediction_is_on_disk_when_it_is_given(
    writer: AuditWriter, log: TroubledLog, first: LocalRelease
) -> None:
    predict(writer, first, "a")
    manifest = first.manifest
    assert entries(log) == [
        PredictionMade(request_id="a", version=1, model_digest=manifest.model_digest)
    ]


def test_many_at_once_share_transactions(
    writer: AuditWriter, log: TroubledLog, first: LocalRelease
) -> None:
    log.pause = 0.02
    names = [f"r{number}" for number in range(64)]
    predict(writer, first, *names)
    written = [e.request_id for e in entries(log) if isinstance(e, PredictionMade)]
    assert sorted(written) == sorted(names)
    assert log.transactions <= 6


def test_a_steady_stream_shares_transactions_and_the_first_waits_for_nobody(
    writer: AuditWriter, log: TroubledLog, first: LocalRelease
) -> None:
    begun = time.monotonic()
    predict(writer, first, "alone")
    assert log.transactions == 1

    async def stream() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(100):
                group.create_task(writer.prediction(first.manifest, f"r{number}"))
                await asyncio.sleep(0.002)

    asyncio.run(stream())
    least = 0.02
    assert log.transactions <= (time.monotonic() - begun) / least + 2
    assert len(entries(log)) == 101


def test_without_the_log_answers_go_on_and_the_gap_is_told(
    writer: AuditWriter, log: TroubledLog, first: LocalRelease
) -> None:
    predict(writer, first, "before")
    log.trouble = True
    begin = time.monotonic()
    predict(writer, first, "x", "y", "z")
    assert time.monotonic() - begin < audit_writer.ANSWER_WAITS_SECONDS
    assert writer.unaudited == 3
    (alarm,) = writer.alarms()
    assert alarm.code == "disk-full"
    assert "cannot be kept" in alarm.message
    log.trouble = False  # nobody asks anything: the gap is written all the same
    wait_for(lambda: not writer.alarms())
    predict(writer, first, "after")
    found = entries(log)
    assert [e.kind for e in found] == ["prediction", "unaudited", "prediction"]
    assert found[1] == Unaudited(predictions=3)
    assert writer.unaudited == 3


def test_views_of_cases_that_could_not_be_written_are_told_apart(
    writer: AuditWriter, log: TroubledLog, first: LocalRelease
) -> None:
    async def look(part: CasePart) -> None:
        await writer.viewed("0" * 32, part, by="anna")

    asyncio.run(look("case"))
    log.trouble = True
    asyncio.run(look("picture"))
    asyncio.run(look("history"))
    predict(writer, first, "x")
    assert (writer.unaudited, writer.unaudited_views) == (1, 2)
    log.trouble = False
    wait_for(lambda: not writer.alarms())
    assert entries(log) == [
        CaseViewed(case="0" * 32, part="case", by="anna"),
        Unaudited(predictions=1, views=2),
    ]


def test_a_slow_log_does_not_hold_up_an_answer_but_gets_it(
    writer: AuditWriter,
    log: TroubledLog,
    first: LocalRelease,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audit_writer, "ANSWER_WAITS_SECONDS", 0.05)
    log.pause = 0.6
    begin = time.monotonic()
    predict(writer, first, "slow")
    assert time.monotonic() - begin < 0.5
    wait_for(lambda: log.transactions == 1)
    wait_for(lambda: len(list(log.lines())) == 1)
    assert writer.unaudited == 0


def test_a_log_that_never_answers_does_not_fill_the_memory(
    log: TroubledLog, first: LocalRelease, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_writer, "MAXIMUM_WAITING", 3)
    monkeypatch.setattr(audit_writer, "ANSWER_WAITS_SECONDS", 0.01)
    writer = AuditWriter(log)  # whose thread is not there
    predict(writer, first, *"abcdefgh")
    assert writer.unaudited == 5
    writer.start()
    writer.close()
    kinds = [e.kind for e in entries(log)]
    assert sorted(kinds) == ["prediction"] * 3 + ["unaudited"]


def test_the_anchor_follows_within_its_time(
    log: TroubledLog,
    settings: SiteSettings,
    first: LocalRelease,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audit_writer, "ANCHOR_SECONDS", 0.3)
    anchor = Anchor(settings.data / "audit-head.json")

    def anchored() -> int:
        head = anchor.read()
        return 0 if head is None else head.sequence

    writer = AuditWriter(log)
    writer.start()
    for number in range(1, 4):
        predict(writer, first, *[f"{number}-{n}" for n in range(5)])
    wait_for(lambda: anchored() == 15)  # though nobody asks any more
    predict(writer, first, "last")
    writer.close()
    assert anchored() == 16


def test_an_anchor_that_cannot_be_written_is_told(
    writer: AuditWriter, settings: SiteSettings, first: LocalRelease
) -> None:
    predict(writer, first, "a")
    wait_for((settings.data / "audit-head.json").exists)
    (settings.data / "audit-head.json").write_text("{}")
    predict(writer, first, "b")
    assert [alarm.code for alarm in writer.alarms()] == ["anchor-unreadable"]
    assert writer.unaudited == 1


def test_closing_writes_what_waits(log: TroubledLog, first: LocalRelease) -> None:
    writer = AuditWriter(log)
    done = [writer._submit(e) for e in (ReleaseInstalled(version=1, model_digest="0" * 64),)]
    writer.start()
    writer.close()
    assert done[0].result(timeout=1)
    assert [e.kind for e in entries(log)] == ["release-installed"]


def test_a_release_is_written_once_and_kept_through_trouble(
    writer: AuditWriter, log: TroubledLog, first: LocalRelease
) -> None:
    log.trouble = True
    writer.release(first.manifest)
    wait_for(writer.alarms)
    assert writer.unaudited == 0
    log.trouble = False
    wait_for(lambda: not writer.alarms())
    writer.release(first.manifest)  # as after a restart
    predict(writer, first, "a")
    assert [e.kind for e in entries(log)] == ["release-installed", "prediction"]


def test_the_service_audits_every_answer_and_no_refusal(
    settings: SiteSettings, first: LocalRelease
) -> None:
    with served_site(settings, FakeReleases(first)) as site:
        answers = [site.predict(picture(seed)) for seed in range(3)]
        assert site.predict(b"no image").status_code == 415
    with open_site_audit(settings) as log:
        found = entries(log)
    told = [e for e in found if isinstance(e, PredictionMade)]
    assert [e.request_id for e in told] == [a.headers["x-request-id"] for a in answers]
    assert {e.model_digest for e in told} == {first.manifest.model_digest}
    assert isinstance(found[0], ReleaseDecided)
    assert found[1] == ReleaseInstalled(version=1, model_digest=first.manifest.model_digest)


def test_clients_at_once_are_all_audited(settings: SiteSettings, first: LocalRelease) -> None:
    with served_site(settings, FakeReleases(first)) as site:
        seen: list[str] = []

        def ask() -> None:
            for seed in range(4):
                seen.append(site.predict(picture(seed)).headers["x-request-id"])

        clients = [threading.Thread(target=ask) for _ in range(8)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
    with open_site_audit(settings) as log:
        told = [e.request_id for e in entries(log) if isinstance(e, PredictionMade)]
    assert sorted(told) == sorted(seen)
    assert len(told) == 32


def test_a_broken_log_shows_on_every_surface(
    settings: SiteSettings, first: LocalRelease, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_writer, "ANCHOR_SECONDS", 0.02)
    anchor = Anchor(settings.data / "audit-head.json")
    with served_site(settings, FakeReleases(first)) as site:
        assert site.predict(picture()).status_code == 200
        wait_for(lambda: (head := anchor.read()) is not None and head.sequence == 3)
        with open_site_audit(settings) as log, log._engine.begin() as connection:
            connection.execute(text("DELETE FROM audit_log WHERE kind = 'prediction'"))
        answer = site.predict(picture())
        assert answer.status_code == 200
        ready = site.call("GET", "/health/ready")
        assert ready.status_code == 200
        assert [alarm["code"] for alarm in ready.json()["alarms"]] == ["audit-damaged"]
        text_of_metrics = site.call("GET", "/metrics").text
        assert "wardround_site_predictions_unaudited_total 1.0" in text_of_metrics
        assert 'wardround_site_release_alarm{code="audit-damaged"} 1.0' in text_of_metrics
        assert "audit log" in site.call("GET", "/").text


def test_decisions_that_a_crash_kept_from_the_log_are_caught_up(
    writer: AuditWriter, log: TroubledLog, first: LocalRelease
) -> None:
    manifest = first.manifest
    made = [
        ReleaseDecision(
            version=manifest.version,
            model_digest=manifest.model_digest,
            verdict=verdict,
            by="it-anna",
            reason="person",
            at=manifest.created_at,
        )
        for verdict in ("held", "accepted", "held")
    ]
    writer.decision(made[0])
    writer.decision(made[1])
    until(lambda: len(entries(log)) == 2)
    for _ in range(2):
        writer.catch_up(made)
        until(lambda: len(entries(log)) == 3)
    writer.close()
    verdicts = [entry.verdict for entry in entries(log) if isinstance(entry, ReleaseDecided)]
    assert verdicts == ["held", "accepted", "held"]


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
