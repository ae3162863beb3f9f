"""A step's updates: shortened by their age, one row a site, kept on disk, read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from common.errors import UpdateRefused
from common.plan import RoundPlan
from common.records import Receipt
from common.wire import Content
from server.registry.records import Contribution
from server.rounds.aggregation_spool import UpdateSpool
from server.rounds.staleness import staleness_of, staleness_weight
from server.rounds.update_buffer import UpdateBuffer
from server.rounds.update_checks import Expected, NormHistory
from tests.fakes import TARGET, FakeSite, first_model
from tests.plans import make_plan

AGES = {"a" * 64: 0, "b" * 64: 3, "c" * 64: 21}
SHAPES = {name: array.shape for name, array in TARGET.items()}


def made(folder: Path, step: int = 5) -> UpdateBuffer:
    ages = AGES.__getitem__
    return UpdateBuffer(folder, step, norms=NormHistory(), staleness=ages, limit=20)


def take(buffer: UpdateBuffer, site: str, turn: int, base: str) -> float:
    plan = make_plan(epsilon=None, campaign="c", round=turn, rounds=9, base_digest=base)
    reply = FakeSite(site, speed=float(turn)).honest(plan, first_model())
    assert reply.receipt is not None
    expected = Expected(site, plan, SHAPES)
    return buffer.take(reply, reply.receipt, expected, Content(1, "0" * 64))


def rows(buffer: UpdateBuffer, folder: Path) -> dict[str, float]:
    """What is left of the target's first weight, by site."""
    with UpdateSpool(folder, SHAPES) as spool:
        buffer.spool_into(spool)
        (found,) = [block for _, block in spool.blocks()]
        norms = {u.site: u.norm for u in spool.updates}
        lengths = dict(zip(norms, np.linalg.norm(found, axis=1), strict=True))
        assert lengths == pytest.approx(norms)
        whole = float(np.sqrt(sum(float(np.square(a).sum()) for a in TARGET.values())))
        return {site: length / whole for site, length in lengths.items()}


def test_the_papers_weight() -> None:
    assert [staleness_weight(n) for n in (0, 3, 15)] == [1.0, 0.5, 0.25]


def test_an_old_update_is_shortened_and_a_site_has_one_row(tmp_path: Path) -> None:
    buffer = made(tmp_path)
    take(buffer, "north", 1, "a" * 64)
    take(buffer, "north", 2, "a" * 64)
    take(buffer, "north-1", 4, "b" * 64)
    assert buffer.sites == ["north", "north", "north-1"]
    assert rows(buffer, tmp_path) == pytest.approx({"north": 1.5, "north-1": 2.0})


def test_what_was_kept_is_in_the_next_processes_buffer(tmp_path: Path) -> None:
    buffer = made(tmp_path)
    take(buffer, "north", 1, "a" * 64)
    take(buffer, "south", 4, "b" * 64)
    again = made(tmp_path)
    assert again.headers == buffer.headers
    assert rows(again, tmp_path) == rows(buffer, tmp_path)
    assert made(tmp_path, step=6).headers == ()


def test_an_update_to_a_model_that_is_too_old_is_refused(tmp_path: Path) -> None:
    buffer = made(tmp_path)
    with pytest.raises(UpdateRefused) as caught:
        take(buffer, "north", 1, "c" * 64)
    assert caught.value.code == "update-stale"
    assert buffer.headers == ()
    assert made(tmp_path).headers == ()


def test_the_age_of_an_update_is_told_from_the_rounds(tmp_path: Path) -> None:
    plan: RoundPlan = make_plan(base_digest="b" * 64)
    receipt: Receipt | None = FakeSite("north").honest(plan, first_model()).receipt
    told = Contribution("c", 7, "north", 1, "accepted", receipt=receipt)
    assert staleness_of(told, {"b" * 64: 4}) == 2
    assert staleness_of(told, {}) is None


def test_what_was_kept_and_is_too_old_by_now_is_dropped(tmp_path: Path) -> None:
    buffer = made(tmp_path)
    take(buffer, "north", 1, "a" * 64)
    take(buffer, "south", 4, "b" * 64)
    norms, ages = NormHistory(), AGES | {"b" * 64: 21}
    again = UpdateBuffer(tmp_path, 5, norms=norms, staleness=ages.__getitem__, limit=20)
    assert again.sites == ["north"]
    assert len(norms.norms) == 1
    assert rows(again, tmp_path).keys() == {"north"}
    assert made(tmp_path).sites == ["north"], "its file is gone"
