"""A round that ends before its last look leaves nothing of who withdrew while it worked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from client import round_handler, unfinished_withdrawals, update_feedback
from client.local_layers import LocalLayerStore
from client.main import make_app
from client.personalisation.head import PersonalHead, PersonalHeads
from client.round_handler import RoundHandler
from client.settings import SiteSettings
from client.site_records import SiteRecords
from client.unfinished_withdrawals import finish_withdrawals
from client.withdrawal import withdraw_patient
from common.errors import StoreError
from common.plan import RoundPlan
from common.recipe import FederationSpec
from common.records import Refusal, SiteReply
from common.update import Tensors
from tests.client.rounds import TOY, base_tensors, make_plan, make_site, no_test, signed

LOCAL = FederationSpec(compression="int8", local_layers=("normalisation",))
RECIPE = TOY.model_copy(update={"federation": LOCAL})


class Killed(BaseException):
    """Ends a round as kill -9 does: nothing that would mend it runs."""


@pytest.fixture(scope="module")
def base() -> Tensors:
    return base_tensors()


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> SiteSettings:
    return make_site(tmp_path / "site", patients=8, holdout=4, database_url=database_url)


def plan_of(base: Tensors, number: int = 1) -> RoundPlan:
    return make_plan(base=base, recipe=RECIPE, round=number)


def answer(site: SiteSettings, base: Tensors, number: int = 1) -> SiteReply:
    plan = plan_of(base, number)
    return RoundHandler(site, self_test=no_test).handle(signed(plan), base)


def traces(site: SiteSettings) -> list[str]:
    return sorted(path.name for path in site.data.rglob("*.safetensors"))


ALL = ["campaign.safetensors", "newest-reply.safetensors", "update-feedback.safetensors"]


def end_before_the_last_look(site: SiteSettings, base: Tensors, error: BaseException) -> None:
    """Train a round in which somebody withdraws, and which does not get to its end."""
    train = round_handler._run

    def late(*given: Any) -> object:
        done = train(*given)
        assert withdraw_patient(site, "train-3").unfinished == ()
        return done

    def end(*_: object) -> bool:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(round_handler, "_run", late)
        patch.setattr(round_handler, "forget_withdrawn", end)
        if isinstance(error, Killed):
            with pytest.raises(Killed):
                answer(site, base)
        else:
            assert answer(site, base).refusal is not None
    assert traces(site) == ALL


def begun_with(patch: pytest.MonkeyPatch) -> list[bool]:
    """Note for each round whether it finds layers, and what compression left over."""
    found: list[bool] = []
    before, memory = LocalLayerStore.before, update_feedback._memory

    def layers(store: LocalLayerStore, *given: Any) -> object:
        kept = before(store, *given)
        found.append(bool(kept))
        return kept

    def left(*given: Any) -> object:
        kept = memory(*given)
        found.append(kept is not None)
        return kept

    patch.setattr(LocalLayerStore, "before", layers)
    patch.setattr(update_feedback, "_memory", left)
    return found


@pytest.mark.parametrize("error", [Killed(), StoreError("The site database failed.")])
@pytest.mark.parametrize("by", ["finishing", "service", "round"])
def test_the_next_who_looks_forgets_what_it_wrote(
    site: SiteSettings, base: Tensors, error: BaseException, by: str
) -> None:
    end_before_the_last_look(site, base, error)
    if by == "finishing":
        with SiteRecords.open(site) as records:
            assert finish_withdrawals(site, records.ledger.engine) == ()
    elif by == "service":
        with TestClient(make_app(site)):
            pass
    else:
        assert answer(site, base).refusal == Refusal(code="plan-replayed")
    assert traces(site) == []


@pytest.mark.parametrize("deleted", [True, False])
def test_nothing_of_it_is_used_again(
    site: SiteSettings, base: Tensors, monkeypatch: pytest.MonkeyPatch, deleted: bool
) -> None:
    """Not even where it cannot be deleted."""
    end_before_the_last_look(site, base, Killed())
    if not deleted:
        monkeypatch.setattr(unfinished_withdrawals, "_forget_late", lambda *_: ())
    found = begun_with(monkeypatch)
    assert answer(site, base).refusal == Refusal(code="plan-replayed")
    assert answer(site, base, 2).update is not None
    assert found == [False, False, False], "layers, once for each plan, and left-overs"


def test_a_killed_round_that_nobody_left_is_answered_again(
    site: SiteSettings, base: Tensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    withdraw_patient(site, "train-1")

    def end(*_: object) -> bool:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(round_handler, "forget_withdrawn", end)
        with pytest.raises(Killed):
            answer(site, base)
    found = begun_with(monkeypatch)
    assert answer(site, base).update is not None
    assert answer(site, base, 2).update is not None
    assert found == [True, True]


def unmark(path: Path) -> None:
    """Make of a file what the version before would have written."""
    with safe_open(path, framework="numpy") as file:
        told = {key: value for key, value in file.metadata().items() if key != "withdrawn"}
    save_file(load_file(path), path, metadata=told)


@pytest.mark.parametrize("gone", [False, True])
def test_files_of_the_version_before(site: SiteSettings, base: Tensors, gone: bool) -> None:
    """They say nothing, and count as written before anybody withdrew."""
    if gone:
        withdraw_patient(site, "train-3")
    assert answer(site, base).update is not None
    PersonalHeads(site).keep(PersonalHead("0" * 64, {"w": np.ones(3, np.float32)}))
    for path in site.data.rglob("*.safetensors"):
        unmark(path)
    with SiteRecords.open(site) as records:
        assert finish_withdrawals(site, records.ledger.engine) == ()
    assert traces(site) == ([] if gone else sorted([*ALL, "personal-head.safetensors"]))
