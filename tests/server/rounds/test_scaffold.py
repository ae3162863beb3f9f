"""SCAFFOLD through the round loop: sites of unlike patients that take several local steps.

Each site's network is a softmax regression on three features, trained on its own data by the
plain gradient steps that the signed plan asks for, with the correction that came added to each.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Error, Message, MessageType, RecordDict
from numpy.typing import NDArray

from common.correction import norm_bound, read_correction
from common.plan import RoundPlan
from common.recipe import LocalTraining, Recipe
from common.records import SiteReply
from common.update import ModelUpdate
from common.wire import content_of, records_to_correction, records_to_request
from server.model_store import ModelStore
from server.rounds.control_variates import ControlVariates
from server.strategy.scaffold import mean_variate, site_variate, wanted_correction
from tests.fakes import TARGET, FakeSite, binding_of, make_receipt, toy_recipe
from tests.server.campaigns import Coordinator

Floats = dict[str, NDArray[np.float64]]
STEPS, RATE = 20, 0.5
SKEWED = (0.05, 0.5, 0.95)
"""Each site's share of malignant cases."""
SHAPES = {name: array.shape for name, array in TARGET.items()}


@dataclass
class LearningSite(FakeSite):
    """A site that trains; ``corrections`` are the norms of what it was sent, by round."""

    features: NDArray[np.float64] = field(default_factory=lambda: np.zeros((1, 3)))
    labels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    given: Floats | None = None
    corrections: dict[int, str | None] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)
    ways: list[Floats] = field(default_factory=list)
    fails: set[int] = field(default_factory=set)

    def answer(self, message: Message) -> RecordDict | Error | None:
        self.given = None
        if message.metadata.message_type == MessageType.TRAIN:
            signed, base = records_to_request(message.content)
            plan = RoundPlan.model_validate_json(signed.payload)
            if plan.purpose == "train":
                self.read(message, plan, base)
            if plan.round in self.fails and plan.purpose == "train":
                return Error(code=2, reason="gone")
        return super().answer(message)

    def read(self, message: Message, plan: RoundPlan, base: dict[str, NDArray[np.generic]]) -> None:
        packed = records_to_correction(message.content)
        bound = (
            norm_bound(base, plan.training) if plan.recipe.federation.compression == "none" else 1e9
        )
        found = read_correction(packed, named=plan.correction, shapes=SHAPES, bound=bound)
        self.given = {n: a.astype(float) for n, a in found.items()} if found is not None else None
        self.corrections[plan.round] = plan.correction
        self.sizes.append(content_of(message.content).bytes)

    def honest(self, plan: RoundPlan, base: dict[str, NDArray[np.generic]]) -> SiteReply:
        update = None
        if plan.purpose == "train":
            weights = {n: base[n].astype(float) for n in TARGET}
            for _ in range(plan.training.local_steps):
                found = gradient(weights, self.features, self.labels)
                added = self.given or {n: np.zeros(s) for n, s in SHAPES.items()}
                rate = plan.training.learning_rate
                weights = {n: weights[n] - rate * (found[n] + added[n]) for n in weights}
            delta = {n: (weights[n] - base[n]).astype(np.float32) for n in TARGET}
            self.ways.append({n: a.astype(float) for n, a in delta.items()})
            update = ModelUpdate(binding_of(plan), delta)
        receipt = make_receipt(self.name, plan, update, patients=self.patients)
        return SiteReply(self.name, None, receipt, update, self.evaluation(base))


def chances(weights: Floats, features: NDArray[np.float64]) -> NDArray[np.float64]:
    logits = features @ weights["head.weight"].T + weights["head.bias"]
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def gradient(weights: Floats, features: NDArray[np.float64], labels: NDArray[np.int64]) -> Floats:
    errors = (chances(weights, features) - np.eye(2)[labels]) / len(labels)
    return {"head.weight": errors.T @ features, "head.bias": errors.sum(axis=0)}


def loss(weights: Floats, sites: list[LearningSite]) -> float:
    """The mean over the sites, each weighed by its declared patients, as FedAvg minimises it."""
    found = [
        -float(np.mean(np.log(chances(weights, s.features)[np.arange(len(s.labels)), s.labels])))
        for s in sites
    ]
    return float(np.average(found, weights=[s.patients for s in sites]))


def skewed(shares: tuple[float, ...], *, alike: bool = False) -> list[LearningSite]:
    """Sites whose share of malignant cases, and whose scanner's offset, differ."""
    sites = []
    for index, share in enumerate(shares):
        random = np.random.default_rng(0 if alike else index)
        labels = (random.random(200) < share).astype(np.int64)
        offset = 0.0 if alike else (index - 1) * np.array([1.0, -1.0, 0.5])
        features = random.normal(size=(200, 3)) - labels[:, None] + offset
        sites.append(LearningSite(f"site-{index}", features=features, labels=labels))
    return sites


def recipe_of(algorithm: str, **federation: object) -> Recipe:
    recipe = toy_recipe(algorithm=algorithm, **federation)
    training = LocalTraining(learning_rate=RATE, local_steps=STEPS)
    return recipe.model_copy(update={"training": training})


def federate(
    folder: Path,
    algorithm: str,
    sites: list[LearningSite],
    *,
    rounds: int = 12,
    quorum: int = 2,
    **federation: object,
) -> Floats:
    coordinator = Coordinator(folder / algorithm, list(sites))
    recipe = recipe_of(algorithm, rounds=rounds, **federation)
    campaign = coordinator.create(recipe, rounds=rounds, quorum=quorum)
    candidate = coordinator.run(campaign)
    weights = ModelStore(coordinator.settings.models).load(candidate.model_digest)
    assert not list((coordinator.settings.data / "campaigns" / campaign.id).glob("control-*"))
    return {n: weights[n].astype(float) for n in TARGET}


@cache
def optimum() -> float:
    """The loss of `SKEWED` that no federation can go below."""
    sites = skewed(SKEWED)
    weights: Floats = {n: np.zeros(s) for n, s in SHAPES.items()}
    for _ in range(3000):
        found = [gradient(weights, s.features, s.labels) for s in sites]
        weights = {n: w - 1.0 * np.mean([g[n] for g in found], axis=0) for n, w in weights.items()}
    return loss(weights, sites)


@pytest.mark.parametrize("compression", ["none", "int8"])
def test_sites_of_unlike_patients_reach_what_averaging_does_not(
    tmp_path: Path, compression: str
) -> None:
    over = {}
    for algorithm in ("fedavg", "scaffold"):
        sites = skewed(SKEWED)
        found = federate(tmp_path, algorithm, sites, rounds=10, compression=compression)
        over[algorithm] = loss(found, sites) - optimum()
    assert over["fedavg"] > 0.01  # the drift: more rounds do not cure it
    assert over["scaffold"] < over["fedavg"] / 5


def test_near_the_optimum_corrected_sites_stand_still(tmp_path: Path) -> None:
    ways = {}
    for algorithm in ("fedavg", "scaffold"):
        sites = skewed(SKEWED)
        federate(tmp_path, algorithm, sites, rounds=10)
        ways[algorithm] = max(np.linalg.norm(s.ways[-1]["head.weight"]) for s in sites)
    assert ways["scaffold"] < ways["fedavg"] / 5


def test_where_sites_are_alike_it_is_federated_averaging(tmp_path: Path) -> None:
    alike = [federate(tmp_path, a, skewed((0.5,) * 3, alike=True)) for a in ("fedavg", "scaffold")]
    for name in TARGET:
        np.testing.assert_allclose(alike[0][name], alike[1][name], atol=1e-5)


def test_with_one_site_it_is_that_sites_training(tmp_path: Path) -> None:
    sites = skewed((0.3,))
    found = federate(tmp_path, "scaffold", sites, rounds=5, quorum=1)
    weights: Floats = {n: np.zeros(s) for n, s in SHAPES.items()}
    for _ in range(5 * STEPS):
        step = gradient(weights, sites[0].features, sites[0].labels)
        weights = {n: w - RATE * step[n] for n, w in weights.items()}
    for name in TARGET:
        np.testing.assert_allclose(found[name], weights[name], atol=1e-5)
    assert set(sites[0].corrections.values()) == {None}


def test_the_first_round_has_no_corrections_and_each_site_gets_its_own(tmp_path: Path) -> None:
    sites = skewed(SKEWED)
    federate(tmp_path, "scaffold", sites, rounds=3)
    assert all(s.corrections[1] is None for s in sites)
    assert len({s.corrections[3] for s in sites} - {None}) == 3


def test_a_site_that_returns_is_corrected_by_what_is_known_of_it(tmp_path: Path) -> None:
    sites = skewed(SKEWED)
    sites[0].fails = {3, 4}
    found = federate(tmp_path, "scaffold", sites, rounds=10)
    assert sites[0].corrections[5] is not None
    assert loss(found, sites) - optimum() < 0.01


class Killed(BaseException):
    """The coordinator ends, as by kill -9: nothing is put in order."""


@pytest.mark.parametrize("moment", ["learn", "prune"])
def test_a_coordinator_that_is_killed_goes_on_with_the_same_corrections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    whole = skewed(SKEWED)
    undisturbed = federate(tmp_path / "whole", "scaffold", whole, rounds=6)
    sites = skewed(SKEWED)
    coordinator = Coordinator(tmp_path, list(sites))
    campaign = coordinator.create(recipe_of("scaffold", rounds=6), rounds=6)
    real, calls = getattr(ControlVariates, moment), []

    def dying(self: ControlVariates, *given: object, **named: object) -> None:
        real(self, *given, **named)  # its files are written, and nothing refers to them
        calls.append(moment)
        if len(calls) == 4:
            raise Killed

    monkeypatch.setattr(ControlVariates, moment, dying)
    with pytest.raises(Killed):
        coordinator.run(campaign)
    candidate = coordinator.run(campaign)
    weights = ModelStore(coordinator.settings.models).load(candidate.model_digest)
    for name in TARGET:
        np.testing.assert_array_equal(weights[name], undisturbed[name].astype(np.float32))
    assert [s.corrections for s in sites] == [s.corrections for s in whole]
    assert all(len(s.ways) == 6 for s in sites)  # nobody trained a round twice


def test_only_two_checkpoints_variates_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, prune = [], ControlVariates.prune

    def counting(self: ControlVariates) -> None:
        prune(self)
        files = list(self._folder.glob("*.safetensors"))
        counts.append(len(files))
        assert all(path.stat().st_mode & 0o077 == 0 for path in files)

    monkeypatch.setattr(ControlVariates, "prune", counting)
    federate(tmp_path, "scaffold", skewed((0.1, 0.9)), rounds=4)
    assert counts == [0, 2, 4, 4, 4]


def test_what_a_correction_costs_on_the_way_down(tmp_path: Path) -> None:
    """With int8, less than the model's whole size in float32; without compression, that much."""
    more = {}
    for compression in ("none", "int8"):
        sent = {}
        for algorithm in ("fedavg", "scaffold"):
            sites = skewed((0.1, 0.9))
            folder = tmp_path / compression
            federate(folder, algorithm, sites, rounds=3, compression=compression)
            sent[algorithm] = sites[0].sizes[-1]
        more[compression] = sent["scaffold"] - sent["fedavg"]
    assert more["int8"] > 0
    assert more["none"] > 0


def test_option_two_reads_the_mean_gradient_out_of_an_update() -> None:
    training = LocalTraining(learning_rate=0.1, local_steps=4)
    mean_gradient = {"w": np.array([1.0, -2.0], dtype=np.float32)}
    correction = {"w": np.array([0.5, 0.25], dtype=np.float32)}
    delta = {"w": -0.1 * 4 * (mean_gradient["w"] + correction["w"])}
    found = site_variate(delta, correction, training)
    np.testing.assert_allclose(found["w"], mean_gradient["w"], rtol=1e-6)


def test_corrections_of_all_sites_cancel_in_the_mean_and_are_bounded() -> None:
    random = np.random.default_rng(0)
    own = [{"w": random.normal(size=5).astype(np.float32)} for _ in range(3)]
    shares = (0.5, 0.3, 0.2)
    mean = mean_variate(zip(shares, own, strict=True))
    sent = [wanted_correction(mean, variate, bound=1e9)["w"] for variate in own]
    np.testing.assert_allclose(np.tensordot(shares, sent, axes=1), 0, atol=1e-6)
    short = wanted_correction(mean, own[0], bound=0.01)["w"]
    assert np.linalg.norm(short) == pytest.approx(0.01, rel=1e-5)
