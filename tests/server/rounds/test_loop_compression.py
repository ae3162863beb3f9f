"""Compressed rounds as a campaign sees them: steps down, packed updates up, and liars."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import RecordDict

from common.compression import Compression, Packed, compress
from common.plan import RoundPlan
from common.records import SiteReply
from common.update import ModelUpdate
from common.wire import reply_to_records
from server.model_store import ModelStore
from tests.fakes import TARGET, FakeSite, toy_recipe
from tests.server.campaigns import Coordinator


def packing(kind: Compression) -> object:
    def behave(reply: SiteReply, plan: RoundPlan) -> RecordDict:
        if reply.update is None:
            return reply_to_records(reply)
        found = compress(reply.update.tensors, kind, seed=bytes.fromhex(plan.nonce))
        update = ModelUpdate(reply.update.binding, found.decoded, found.packed)
        return told(reply, update)

    return behave


def told(reply: SiteReply, update: ModelUpdate) -> RecordDict:
    assert reply.receipt is not None
    receipt = reply.receipt.model_copy(update={"update_digest": update.digest})
    return reply_to_records(replace(reply, update=update, receipt=receipt))


def broken_scale(reply: SiteReply, plan: RoundPlan) -> RecordDict:
    if reply.update is None:
        return reply_to_records(reply)
    packed = compress(reply.update.tensors, "int8", seed=b"s").packed
    scales = np.full_like(packed.arrays["scales"], np.nan)
    spoiled = Packed("int8", {**packed.arrays, "scales": scales})
    return told(reply, replace(reply.update, packed=spoiled))


def three(folder: Path, **behaviours: object) -> Coordinator:
    sites = [
        FakeSite(name, behave=behaviours.get(name, packing("int8")))  # type: ignore[arg-type]
        for name in ("north", "south", "west")
    ]
    return Coordinator(folder, sites)


def test_after_the_first_round_only_steps_travel_and_the_model_is_learnt(tmp_path: Path) -> None:
    coordinator = three(tmp_path)
    recipe = toy_recipe(rounds=5, compression="int8")
    candidate = coordinator.run(coordinator.create(recipe, rounds=5))
    weights = ModelStore(coordinator.settings.models).load(candidate.model_digest)
    wanted = TARGET["head.weight"] * (1 - 0.5**5)
    assert np.abs(weights["head.weight"] - wanted).max() < 0.05 * np.abs(wanted).max()
    for site in coordinator.sites.values():
        # The last is the candidate's evaluation, whose plan says the last round again.
        assert site.stepped == [2, 3, 4, 5, 5]


def test_a_site_that_forgot_gets_the_whole_model_in_the_same_round(tmp_path: Path) -> None:
    coordinator = three(tmp_path)
    west, honest = coordinator.sites["west"], packing("int8")

    def forgetful(reply: SiteReply, plan: RoundPlan) -> RecordDict:
        west.held = {}
        return honest(reply, plan)  # type: ignore[operator,no-any-return]

    west.behave = forgetful
    campaign = coordinator.create(toy_recipe(rounds=3, compression="int8"), rounds=3)
    coordinator.run(campaign)
    assert west.stepped == []
    assert [plan.round for plan in west.plans] == [1, 2, 3, 3]
    for number in (1, 2, 3):
        told = coordinator.registry.contributions(campaign.id, number=number)
        assert [c.outcome for c in told if c.site == "west"] == ["accepted"]


@pytest.mark.parametrize(
    ("behave", "code"),
    [(broken_scale, "update-compression"), (packing("fp16"), "update-compression")],
    ids=["a scale that is no number", "another compression than the plan's"],
)
def test_a_malformed_update_is_rejected_by_name(tmp_path: Path, behave: object, code: str) -> None:
    coordinator = three(tmp_path, west=behave)
    campaign = coordinator.create(toy_recipe(rounds=1, compression="int8"), rounds=1)
    coordinator.run(campaign)
    found = coordinator.contribution(campaign, "west")
    assert (found.outcome, found.code) == ("rejected", code)


def test_without_compression_the_whole_model_travels(tmp_path: Path) -> None:
    coordinator = three(tmp_path, north=None, south=None, west=None)
    coordinator.run(coordinator.create(rounds=2))
    assert all(site.stepped == [] for site in coordinator.sites.values())
