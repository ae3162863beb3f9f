"""Layers that stay at the site (FedBN, FedPer), from a round's plan to what leaves."""

import os
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from client import round_handler
from client.local_layers import LocalLayerStore
from client.outbox import Outbox
from client.privacy.ledger import PrivacyLedger
from client.round_handler import RoundHandler
from client.settings import SiteSettings
from client.training import Trained
from client.withdrawal import withdraw_patient
from common.local_layers import local_names
from common.model import build_model
from common.plan import RoundPlan
from common.recipe import FederationSpec
from common.records import Refusal, SiteReply
from common.update import ModelUpdate, Tensors
from common.wire import records_to_reply
from tests.client.rounds import TOY, base_tensors, make_plan, make_site, signed

LOCAL = TOY.model_copy(update={"federation": FederationSpec(local_layers=("normalisation",))})
STAYING = local_names(build_model(LOCAL, pretrained=False), ("normalisation",))


@pytest.fixture(scope="module")
def base() -> Tensors:
    return base_tensors()


@pytest.fixture
def site(tmp_path: Path) -> SiteSettings:
    return make_site(tmp_path / "site", patients=8, holdout=4, allow_without_privacy=True)


def plan_of(base: Tensors, number: int = 1, **fields: object) -> RoundPlan:
    chosen = {"recipe": LOCAL, "round": number, "base": base} | fields
    return make_plan(**chosen)  # type: ignore[arg-type]


def answer(site: SiteSettings, plan: RoundPlan, base: Tensors) -> SiteReply:
    reply = RoundHandler(site, self_test=lambda *_, **__: None).handle(signed(plan), base)
    assert reply.refusal is None, reply.refusal
    return reply


def kept(site: SiteSettings, campaign: str = "campaign") -> dict[str, NDArray[np.float32]]:
    found = LocalLayerStore(site).find(campaign)
    return {} if found is None else found.tensors


def put(site: SiteSettings, plan: RoundPlan, base: Tensors, value: float) -> None:
    layers = {n: np.full(base[n].shape, value, dtype=np.float32) for n in STAYING}
    LocalLayerStore(site).keep(plan, layers)


@pytest.mark.parametrize("epsilon", [8.0, None])
def test_they_are_trained_and_kept_and_do_not_leave(
    site: SiteSettings, base: Tensors, epsilon: float | None
) -> None:
    reply = answer(site, plan_of(base, epsilon=epsilon, steps=3), base)
    assert reply.update is not None
    assert not STAYING & reply.update.tensors.keys()
    layers = kept(site)
    assert layers.keys() == STAYING
    assert any(not np.array_equal(layers[n], base[n]) for n in STAYING)
    folder = site.data / "local-layers"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE(p.stat().st_mode) for p in folder.iterdir()] == [0o600]


def test_a_round_begins_with_the_ones_of_the_round_before(
    site: SiteSettings, base: Tensors
) -> None:
    put(site, plan_of(base), base, 0.5)
    answer(site, plan_of(base, 2, epsilon=None, rate_of_learning=1e-12), base)
    for name, layer in kept(site).items():
        np.testing.assert_allclose(layer, 0.5, err_msg=name)


def test_what_is_trained_is_scored_with_them_and_what_may_be_released_as_it_came(
    site: SiteSettings, base: Tensors
) -> None:
    """Layers of zeros answer the same for every image."""
    alone = answer(site, plan_of(base, purpose="evaluate"), base).evaluation
    put(site, plan_of(base), base, 0.0)
    judged = answer(site, plan_of(base, 2, purpose="evaluate"), base).evaluation
    trained = answer(site, plan_of(base, 2), base).evaluation
    assert judged == alone
    assert trained is not None
    assert trained != alone
    assert len(trained.positives[0].counts) == len(trained.negatives[0].counts) == 1


@pytest.mark.parametrize("fault", ["later", "other", "bare", "cut", "shape", "names", "nan"])
def test_those_that_do_not_belong_are_not_used(
    site: SiteSettings, base: Tensors, fault: str
) -> None:
    first, wrong = plan_of(base), dict.fromkeys(STAYING, np.float32(0.5))
    layers = {n: np.full(base[n].shape, v, dtype=np.float32) for n, v in wrong.items()}
    store, name = LocalLayerStore(site), min(STAYING)
    if fault == "later":
        first = plan_of(base, 3)
    elif fault == "other":
        first = plan_of(base, campaign="another")
    elif fault == "bare":
        first = plan_of(base, epsilon=None)
    elif fault == "shape":
        layers[name] = np.zeros(3, dtype=np.float32)
    elif fault == "names":
        layers["head.weight"] = np.zeros((2, 2), dtype=np.float32)
    elif fault == "nan":
        layers[name][0] = np.nan
    store.keep(first, layers)
    if fault == "cut":
        path = site.data / "local-layers" / "campaign.safetensors"
        path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    assert store.before(plan_of(base, 3), base, STAYING, 0) == {}
    put(site, plan_of(base), base, 0.5)
    assert store.before(plan_of(base, 3), base, STAYING, 0).keys() == STAYING


def test_an_update_with_one_never_leaves_the_outbox(site: SiteSettings, base: Tensors) -> None:
    plan = plan_of(base)
    with Outbox.open(site) as outbox:
        request = outbox.opened(signed(plan), base)
        honest = answer(site, plan, base)
        assert honest.update is not None
        assert honest.receipt is not None
        name = min(STAYING)
        update = ModelUpdate(
            honest.update.binding, {**honest.update.tensors, name: kept(site)[name]}
        )
        receipt = honest.receipt.model_copy(update={"update_digest": update.digest})
        leak = replace(honest, update=update, receipt=receipt)
        assert records_to_reply(outbox.send(leak, request)).refusal == Refusal(
            code="outbox-refused"
        )
        sent = records_to_reply(outbox.send(honest, request)).update
        assert sent is not None
        assert sent.digest == honest.update.digest


def test_they_go_with_a_patient(site: SiteSettings, base: Tensors) -> None:
    answer(site, plan_of(base), base)
    withdraw_patient(site, "train-3")
    assert kept(site) == {}


def test_a_patient_who_withdraws_during_training_is_in_none(
    site: SiteSettings, base: Tensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = round_handler.train_private

    def late(*given: Any, **named: Any) -> Trained:
        withdraw_patient(site, "train-3")
        return train(*given, **named)

    monkeypatch.setattr(round_handler, "train_private", late)
    assert answer(site, plan_of(base), base).update is not None
    assert kept(site) == {}


def test_the_ledger_counts_the_same(tmp_path: Path, base: Tensors) -> None:
    spent = []
    for name, recipe in (("shared", TOY), ("local", LOCAL)):
        site = make_site(tmp_path / name, patients=8, holdout=4)
        for number in (1, 2):
            answer(site, plan_of(base, number, recipe=recipe), base)
        with PrivacyLedger.open(site) as ledger:
            spent.append([line.spend for line in ledger.entries()])
    assert spent[0] == spent[1]


def test_a_round_that_is_asked_for_again_is_neither_trained_nor_kept_again(
    site: SiteSettings, base: Tensors
) -> None:
    first = answer(site, plan_of(base), base)
    before = kept(site)
    again = answer(site, plan_of(base), base)
    assert first.update is not None
    assert again.update is not None
    for name, tensor in first.update.tensors.items():
        np.testing.assert_array_equal(again.update.tensors[name], tensor)
    for name, layer in kept(site).items():
        np.testing.assert_array_equal(layer, before[name])


def test_a_few_campaigns_are_kept(site: SiteSettings, base: Tensors) -> None:
    for number in range(5):
        put(site, plan_of(base, campaign=f"campaign-{number}"), base, 0.5)
    assert [bool(kept(site, f"campaign-{n}")) for n in range(5)] == [False, False, True, True, True]


def test_a_plan_that_shares_nothing_is_refused(site: SiteSettings, base: Tensors) -> None:
    recipe = LOCAL.model_copy(update={"federation": FederationSpec(local_layers=("head",))})
    plan = plan_of(base, recipe=recipe).model_copy(update={"trainable": "head"})
    reply = RoundHandler(site, self_test=lambda *_, **__: None).handle(signed(plan), base)
    assert reply.refusal == Refusal(code="model-unsupported")


def test_a_patient_who_withdraws_before_training_is_in_none(
    site: SiteSettings, base: Tensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the reading of the layers, which know the patient, and that of the cases."""
    answer(site, plan_of(base), base)
    before, begun_with = LocalLayerStore.before, []

    def late(store: LocalLayerStore, *given: Any) -> dict[str, NDArray[np.float32]]:
        found = before(store, *given)
        withdraw_patient(site, "train-3")
        begun_with.append(set(found))
        return found

    monkeypatch.setattr(LocalLayerStore, "before", late)
    answer(site, plan_of(base, 2), base)
    assert begun_with == [STAYING, set()], "prepared anew, from layers that know nobody"


def test_after_the_clock_was_set_back_the_newest_campaigns_stay(
    site: SiteSettings, base: Tensors
) -> None:
    """Files of the time ahead look newer than the one just written."""
    folder = site.data / "local-layers"
    for name in ("a", "b", "c"):
        put(site, plan_of(base, campaign=name), base, 0.5)
    ahead = time.time() + 7 * 86400
    for nth, name in enumerate("abc"):
        os.utime(folder / f"{name}.safetensors", (ahead + 10 * nth, ahead + 10 * nth))
    put(site, plan_of(base, campaign="d"), base, 0.5)
    assert {path.stem for path in folder.iterdir()} == {"b", "c", "d"}
    put(site, plan_of(base, campaign="e"), base, 0.5)
    assert {path.stem for path in folder.iterdir()} == {"c", "d", "e"}
