"""A withdrawal is finished, whoever dies and whatever fails, and forgets no more than it has to."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from client import unfinished_withdrawals
from client.audit import open_site_audit
from client.cases.store import CaseStore
from client.cases.tables import AUDIT
from client.cases.withdrawals import Withdrawals
from client.local_layers import LocalLayerStore
from client.main import make_app
from client.personalisation.head import PersonalHeads
from client.round_handler import RoundHandler
from client.settings import SiteSettings
from client.site_records import SiteRecords
from client.unfinished_withdrawals import finish_withdrawals
from client.withdrawal import withdraw_case, withdraw_patient
from common.audit import AuditLog
from common.audit_entries import PatientWithdrawn, TrainingPaused
from common.database import open_database
from tests.client.pictures import picture
from tests.client.rounds import base_tensors, make_plan, make_site, no_test, signed

TRACES = (
    "data/newest-reply.safetensors",
    "data/update-feedback.safetensors",
    "data/local-layers/spring.safetensors",
    "data/personal-head.safetensors",
    "data/profiles/model.json",
    "data/cache/holdout-scores/model.npz",
    "data/cache/toy-0123456789abcdef/index.json",
)


class Killed(BaseException):
    """Ends a withdrawal as kill -9 does: nothing that would mend it runs."""


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> SiteSettings:
    made = make_site(tmp_path / "site", patients=3, holdout=2, database_url=database_url)
    leave_traces(made)
    return made


def leave_traces(site: SiteSettings) -> None:
    for name in TRACES:
        path = site.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"something of a patient")


def traces(site: SiteSettings) -> list[str]:
    return [name for name in TRACES if (site.folder / name).exists()]


def told(site: SiteSettings) -> list[PatientWithdrawn]:
    with open_site_audit(site) as audit:
        entries = [line.entry() for line in audit.lines()]
    return [entry for entry in entries if isinstance(entry, PatientWithdrawn)]


def finish(site: SiteSettings) -> tuple[str, ...]:
    with SiteRecords.open(site) as records:
        return finish_withdrawals(site, records.ledger.engine)


def add(site: SiteSettings, *, label: str | None, patient: str = "new") -> str:
    with closing(CaseStore.open(site)) as store:
        image = picture(1, np.random.default_rng(77))
        case = store.add(
            image, task="toy", patient_id=patient, label=label, source="test", split="train"
        )
        return case.id


def die_after(owner: object, name: str, *, spared: int = 0) -> Callable[[pytest.MonkeyPatch], None]:
    """Die after a step, the first calls of it ``spared``."""
    real = getattr(owner, name)

    def kill(patch: pytest.MonkeyPatch) -> None:
        calls = itertools.count()

        def deadly(*given: object, **named: object) -> object:
            done = real(*given, **named)
            if next(calls) >= spared:
                raise Killed
            return done

        patch.setattr(owner, name, deadly)

    return kill


@pytest.mark.parametrize(
    "kill",
    [
        die_after(Withdrawals, "patient"),
        die_after(Withdrawals, "remove_images", spared=1),  # it opens the store, too
        die_after(unfinished_withdrawals, "forget_reply"),
        die_after(unfinished_withdrawals, "forget_feedback"),
        die_after(LocalLayerStore, "forget"),
        die_after(PersonalHeads, "forget"),
        die_after(unfinished_withdrawals, "forget_holdout_traces"),
        die_after(unfinished_withdrawals, "forget_prepared"),
        die_after(unfinished_withdrawals, "_strike"),
        die_after(AuditLog, "append_in"),
        die_after(AuditLog, "remember"),
        die_after(unfinished_withdrawals, "_tell"),
    ],
)
def test_what_a_killed_withdrawal_left_is_done_once(
    site: SiteSettings, kill: Callable[[pytest.MonkeyPatch], None]
) -> None:
    with closing(CaseStore.open(site)) as store:
        images = {case.digest for case in store.training_cases("toy")}
    with pytest.MonkeyPatch.context() as patch:
        kill(patch)
        with pytest.raises(Killed):
            withdraw_patient(site, "train-1", by="somebody")
    assert finish(site) == ()
    assert traces(site) == []
    assert told(site) == [PatientWithdrawn(cases=1, by="somebody")]
    with closing(CaseStore.open(site)) as store:
        left = {case.digest for case in store.training_cases("toy")}
    assert len(images) == len(left) + 1
    assert {p.name for p in site.images.rglob("*") if p.is_file()} & images == left
    leave_traces(site)
    assert finish(site) == ()
    assert traces(site) == list(TRACES), "what was made since is forgotten no second time"


@pytest.mark.parametrize("by", ["service", "round", "the same again"])
def test_who_finishes_it(site: SiteSettings, by: str) -> None:
    with closing(CaseStore.open(site)) as store:
        store.withdrawals.patient("train-1")
    if by == "service":
        with TestClient(make_app(site)):  # its lanes end with it
            pass
    elif by == "round":
        base = base_tensors()
        plan = make_plan(base=base, purpose="evaluate")
        assert RoundHandler(site, self_test=no_test).handle(signed(plan), base).evaluation
    else:
        assert withdraw_patient(site, "train-1").cases == 0
    assert [t for t in traces(site) if "holdout-scores" not in t] == []
    assert told(site) == [PatientWithdrawn(cases=1)]


def damage(site: SiteSettings) -> None:
    engine = open_database(site.database)
    with engine.begin() as connection:
        connection.execute(update(AUDIT).values(body='{"kind":"training-paused","by":"other"}'))
    engine.dispose()


def unanchor(site: SiteSettings) -> None:
    (site.data / "audit-head.json").write_text("no head")


@pytest.mark.parametrize("spoil", [damage, unanchor])
def test_an_audit_log_that_takes_no_line_holds_up_nothing(
    site: SiteSettings, spoil: Callable[[SiteSettings], None]
) -> None:
    with open_site_audit(site) as audit:
        audit.append(TrainingPaused(by="somebody"))
    before = (site.data / "audit-head.json").read_bytes()
    spoil(site)
    done = withdraw_patient(site, "train-1")
    assert (done.cases, done.side) == (1, "train")
    assert len(done.unfinished) == 1
    assert "audit log" in done.unfinished[0]
    assert traces(site) == []
    assert len(finish(site)) == 1
    if spoil is unanchor:
        (site.data / "audit-head.json").write_bytes(before)
        assert withdraw_patient(site, "train-1").unfinished == ()
        assert told(site) == [PatientWithdrawn(cases=1)]


def test_a_trace_that_stays_holds_up_no_other(
    site: SiteSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: SiteSettings) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(unfinished_withdrawals, "forget_reply", refuse)
        done = withdraw_patient(site, "train-1")
    assert done.unfinished == ("The newest reply: Permission denied",)
    assert traces(site) == [TRACES[0]]
    assert told(site) == [PatientWithdrawn(cases=1)]
    assert finish(site) == ()
    assert traces(site) == []


def test_a_case_that_nobody_confirmed_takes_nothing_along(site: SiteSettings) -> None:
    case = add(site, label=None)
    assert withdraw_case(site, case).cases == 1
    assert traces(site) == list(TRACES)
    assert told(site) == [PatientWithdrawn(cases=1)]


def test_a_case_that_was_confirmed_takes_all_along(site: SiteSettings) -> None:
    case = add(site, label="bright")
    assert withdraw_case(site, case).cases == 1
    assert traces(site) == []


def test_said_again_a_withdrawal_forgets_and_tells_nothing_more(site: SiteSettings) -> None:
    with closing(CaseStore.open(site)) as store:
        case = store.training_cases("toy")[0]
    withdraw_case(site, case.id)
    withdraw_patient(site, "train-1")
    leave_traces(site)
    lines = told(site)
    assert withdraw_case(site, case.id).cases == withdraw_patient(site, "train-1").cases == 0
    assert traces(site) == list(TRACES)
    assert told(site) == lines


def test_a_name_that_the_audit_log_cannot_keep_withdraws_nothing(site: SiteSettings) -> None:
    with pytest.raises(ValueError, match="by"):
        withdraw_patient(site, "train-1", by="Somebody Else")
    with closing(CaseStore.open(site)) as store:
        assert len(store.training_cases("toy")) == 3
