from datetime import UTC, datetime, timedelta, timezone

from common.moments import in_utc, utc_now


def test_a_moment_without_its_zone_was_written_in_utc() -> None:
    assert in_utc(datetime(2026, 3, 1, 12)) == datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_another_zone_is_converted() -> None:
    berlin = timezone(timedelta(hours=1))
    found = in_utc(datetime(2026, 3, 1, 12, tzinfo=berlin))
    assert (found.hour, found.tzinfo) == (11, UTC)


def test_no_moment_stays_none() -> None:
    assert in_utc(None) is None


def test_now_has_its_zone() -> None:
    assert utc_now().tzinfo is UTC
