"""A site that was caught lying counts among the malicious that are borne, however it was caught."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from flwr.app import RecordDict
from numpy.typing import NDArray

from common.compression import compress
from common.plan import RoundPlan
from common.records import SiteReply
from common.update import ModelUpdate
from common.wire import reply_to_records
from server.model_store import ModelStore
from server.registry.records import Campaign, Candidate, Contribution
from server.rounds.replies import is_caught
from tests.fakes import TARGET, FakeSite, rebuilt, silent, toy_recipe
from tests.server.campaigns import Coordinator
from tests.server.rounds.buffered import buffered
from tests.server.rounds.test_loop_compression import broken_scale, packing, told
from tests.server.test_resume import Killed

HALF = TARGET["head.bias"] * 0.5  # what one honest round makes of it
WHOLE = HALF / 3  # the mean with the honest site that is unlike the two others


def unlike(reply: SiteReply, plan: RoundPlan) -> RecordDict:
    """An honest hospital whose bias goes the other way; near-median cuts it, where it cuts one."""
    if reply.update is None:
        return reply_to_records(reply)
    tensors = {**reply.update.tensors, "head.bias": -reply.update.tensors["head.bias"]}
    found = compress(tensors, "int8", seed=bytes.fromhex(plan.nonce))
    return told(reply, ModelUpdate(reply.update.binding, found.decoded, found.packed))


def not_finite(reply: SiteReply, plan: RoundPlan) -> RecordDict:
    if reply.update is None:
        return reply_to_records(reply)
    spoiled = {n: np.full_like(a, np.nan) for n, a in reply.update.tensors.items()}
    return rebuilt(reply, spoiled)


def federation(
    folder: Path, liar: object, *, buffer: bool, rounds: int = 1
) -> tuple[Coordinator, Campaign]:
    behaviours = {"north": packing("int8"), "south": packing("int8"), "west": unlike, "east": liar}
    sites = [FakeSite(name, behave=b) for name, b in behaviours.items()]  # type: ignore[arg-type]
    made = Coordinator(folder, sites)
    recipe = toy_recipe(
        rounds=rounds, quorum=3, compression="int8", aggregation={"name": "near-median"}
    )
    if buffer:
        return made, buffered(made, recipe=recipe, size=3, rounds=rounds, quorum=3)
    return made, made.create(recipe, rounds=rounds, quorum=3)


def bias(made: Coordinator, candidate: Candidate) -> NDArray[np.generic]:
    return ModelStore(made.settings.models).load(candidate.model_digest)["head.bias"]


@pytest.mark.parametrize("buffer", [False, True], ids=["synchronous", "buffered"])
@pytest.mark.parametrize(
    ("liar", "code"),
    [(broken_scale, "update-compression"), (not_finite, "update-not-finite")],
    ids=["cannot be decoded", "is not finite"],
)
def test_no_honest_site_is_cut_in_the_place_of_one_that_was_caught(
    tmp_path: Path, liar: object, code: str, buffer: bool
) -> None:
    made, campaign = federation(tmp_path, liar, buffer=buffer)
    candidate = made.run(campaign)
    found = made.contribution(campaign, "east")
    assert (found.outcome, found.code) == ("rejected", code)
    np.testing.assert_allclose(bias(made, candidate), WHOLE, rtol=1e-2)


@pytest.mark.parametrize("buffer", [False, True], ids=["synchronous", "buffered"])
def test_without_a_liar_the_site_that_is_unlike_the_others_is_cut(
    tmp_path: Path, buffer: bool
) -> None:
    made, campaign = federation(tmp_path, silent, buffer=buffer)
    np.testing.assert_allclose(bias(made, made.run(campaign)), HALF, rtol=1e-2)


@pytest.mark.parametrize("buffer", [False, True], ids=["synchronous", "buffered"])
def test_who_was_caught_before_a_restart_counts_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, buffer: bool
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise Killed

    made, campaign = federation(tmp_path, broken_scale, buffer=buffer)
    loop = "server.rounds.buffered_loop" if buffer else "server.rounds.loop"
    with monkeypatch.context() as patch:
        patch.setattr(f"{loop}.aggregate", killed)
        with pytest.raises(Killed):
            made.run(campaign)
    made.sites["east"].behave = silent
    np.testing.assert_allclose(bias(made, made.run(campaign)), WHOLE, rtol=1e-2)


def test_one_whose_update_came_after_all_counts_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    made, campaign = federation(tmp_path, broken_scale, buffer=False)

    def killed(*_: object, refused: int, **__: object) -> None:
        counted.append(refused)
        raise Killed

    monkeypatch.setattr("server.rounds.loop.aggregate", killed)
    for behave in (broken_scale, packing("int8")):
        made.sites["east"].behave = behave  # type: ignore[assignment]
        with pytest.raises(Killed):
            made.run(campaign)
    assert counted == [1, 0]


def test_one_whose_earlier_update_is_in_the_step_is_not_counted_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a liar with two turns in a step could spend the allowance with the second."""
    counted: list[int] = []
    honest = packing("int8")

    def first_honest(reply: SiteReply, plan: RoundPlan) -> RecordDict:
        return broken_scale(reply, plan) if plan.round > 1 else honest(reply, plan)  # type: ignore[operator]

    def killed(*_: object, refused: int, **__: object) -> None:
        counted.append(refused)
        raise Killed

    made, campaign = federation(tmp_path, first_honest, buffer=True, rounds=2)
    for name in ("north", "south", "west"):
        made.sites[name].delay = 9.0
    monkeypatch.setattr("server.rounds.buffered_loop.aggregate", killed)
    with pytest.raises(Killed):
        made.run(campaign)
    found = made.registry.contributions(campaign.id, number=1)
    assert [c.outcome for c in found if c.site == "east"] == ["accepted", "rejected"]
    assert counted == [0]


@pytest.mark.parametrize(
    ("outcome", "code", "caught"),
    [
        ("rejected", "update-compression", True),
        ("rejected", "reply-malformed", True),
        ("rejected", "update-norm", True),
        ("rejected", "update-stale", False),
        ("rejected", "reply-node", False),  # another node answered
        ("rejected", "site-revoked", False),
        ("refused", "budget-spent", False),
        ("failed", "site-app-failed", False),
        ("late", "deadline", False),
        ("accepted", None, False),
    ],
)
def test_what_an_outcome_says_of_a_site(outcome: str, code: str | None, caught: bool) -> None:
    told = Contribution("c", 1, "north", 1, outcome, code=code)  # type: ignore[arg-type]
    assert is_caught(told) == caught
