"""A site tells of itself what its policy lists: in bands, seldom, through the outbox, on record."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from client import site_status as module
from client.audit import open_site_audit
from client.outbox import Outbox
from client.plan_memory import Limits
from client.privacy.ledger import PrivacyLedger
from client.privacy.ledger_lines import RoundRequest
from client.round_handler import RoundHandler
from client.settings import SiteSettings
from client.site_records import SiteRecords
from common.audit_entries import Left
from common.records import NEW_CASE_BANDS, SiteReply, SiteStatus, band_floor
from common.wire import records_to_reply
from tests.client.rounds import fill, make_plan, make_site, signed

BOTH = ("new-cases", "drift")


def asked(site: SiteSettings, status: SiteStatus | None = None) -> SiteReply:
    """Ask as a coordinator does; ``status`` is slipped in behind the handler's back."""
    request = signed(make_plan(purpose="preflight", campaign="status"))
    with Outbox.open(site) as outbox:
        opened = outbox.opened(request, {})
        reply = RoundHandler(site).handle(request, {})
        assert reply.forecast is not None
        if status is not None:
            forged = reply.forecast.model_copy(update={"status": status})
            reply = replace(reply, forecast=forged)
        return records_to_reply(outbox.send(reply, opened))


def told(site: SiteSettings) -> SiteStatus | None:
    reply = asked(site)
    assert reply.forecast is not None
    return reply.forecast.status


def left(site: SiteSettings) -> list[Left]:
    with open_site_audit(site) as log:
        entries = [line.entry() for line in log.lines(kinds=("left",))]
    return [entry for entry in entries if isinstance(entry, Left)]


def accepted(site: SiteSettings, campaign: str = "older") -> None:
    with SiteRecords.open(site) as records:
        records.plans.accept(make_plan(campaign=campaign), Limits(10, 10), now=time.time())


def ended(site: SiteSettings, outcome: str, campaign: str = "older") -> None:
    """A round that was accepted, and what became of it."""
    accepted(site, campaign)
    request = RoundRequest(
        campaign=campaign,
        round=1,
        nonce="a" * 64,
        rounds_left=1,
        sampling_rate=0.1,
        steps=1,
        max_grad_norm=1.0,
    )
    with PrivacyLedger.open(site) as ledger:
        ledger.outcome(ledger.reserve_without_privacy(request, delta=1e-5), outcome)


def test_a_policy_that_lists_nothing_tells_nothing(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    assert told(site) is None
    assert left(site)[-1].contents == ("forecast",)


def test_new_cases_are_told_in_bands_and_written_down(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site", patients=24, holdout=8, release_status=BOTH)
    assert told(site) == SiteStatus(new_cases=20)  # 32 patients; too few to tell of drift
    assert left(site)[-1].contents == ("forecast", "status")
    ended(site, "trained")
    assert told(site) == SiteStatus(new_cases=0)


def test_a_round_that_trained_nothing_leaves_new_cases_new(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site", patients=24, holdout=8, release_status=BOTH)
    accepted(site, "killed")
    assert told(site) == SiteStatus(new_cases=20)
    ended(site, "device-memory")
    assert told(site) == SiteStatus(new_cases=20)


def test_a_round_that_is_asked_for_again_makes_no_case_old(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site", patients=0, holdout=0, release_status=("new-cases",))
    ended(site, "trained")
    fill(site, 24, "train")
    accepted(site)  # its reply was lost
    assert told(site) == SiteStatus(new_cases=20)


def test_drift_is_a_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "drift_level", lambda *_, **__: 2)
    site = make_site(tmp_path / "site", release_status=("drift",))
    assert told(site) == SiteStatus(drift=2)


def test_drift_of_predictions_is_told_where_it_is_listed_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_with = []

    def level(_site: SiteSettings, task: str, _classes: object, **how: object) -> int:
        asked_with.append((task, how["fewest"]))
        return 1

    monkeypatch.setattr(module, "prediction_drift_level", level)
    site = make_site(tmp_path / "one", release_status=("prediction-drift",), minimum_cell=25)
    assert told(site) == SiteStatus(prediction_drift=1)
    assert asked_with == [(make_plan().recipe.name, 25)]
    other = make_site(tmp_path / "two", release_status=BOTH)
    found = told(other)
    assert found is not None
    assert found.prediction_drift is None
    assert len(asked_with) == 1


def test_below_the_smallest_cell_a_site_tells_none(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site", minimum_cell=50, release_status=("new-cases",))
    assert told(site) == SiteStatus(new_cases=0)


def test_it_is_told_so_often_a_day_and_no_more(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site", release_status=("new-cases",), status_per_day=2)
    assert [told(site) is None for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize(
    ("listed", "status"),
    [
        (("drift",), SiteStatus(new_cases=20)),
        (("new-cases",), SiteStatus(drift=1)),
        ((), SiteStatus(new_cases=0)),
        (BOTH, SiteStatus.model_construct(new_cases=32, drift=None)),
        (BOTH, SiteStatus.model_construct(new_cases=None, drift=7)),
        (BOTH, SiteStatus()),
        (BOTH, SiteStatus(prediction_drift=0)),
        (("prediction-drift",), SiteStatus(drift=0)),
        (("prediction-drift",), SiteStatus.model_construct(new_cases=None, prediction_drift=3)),
    ],
)
def test_the_outbox_holds_back_what_the_policy_does_not_allow(
    tmp_path: Path, listed: tuple[str, ...], status: SiteStatus
) -> None:
    site = make_site(tmp_path / "site", release_status=listed)
    reply = asked(site, status)
    assert reply.forecast is None
    assert reply.refusal is not None
    assert reply.refusal.code == "outbox-refused"
    assert "status" not in left(site)[-1].contents


def test_the_outbox_counts_the_day_by_itself(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site", release_status=("new-cases",), status_per_day=1)
    assert asked(site, SiteStatus(new_cases=20)).forecast is not None
    assert asked(site, SiteStatus(new_cases=20)).refusal is not None


def test_bands_have_no_more_in_them_than_they_say() -> None:
    assert [band_floor(n, 10) for n in (0, 9, 10, 19, 20, 99, 100, 10**6)] == [
        0, 0, 10, 10, 20, 50, 100, 10_000,
    ]  # fmt: skip
    assert band_floor(30, 25) == 0
    for band in NEW_CASE_BANDS:
        assert SiteStatus(new_cases=band).new_cases == band
    with pytest.raises(ValueError, match="band"):
        SiteStatus(new_cases=37)
