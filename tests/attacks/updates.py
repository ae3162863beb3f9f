"""A poisoned neighbour: 1 of 4 sites sends what should not become part of the model.

Small tensors go through the coordinator's own checks and its own aggregation. Updates under
privacy come with a receipt, whose claims are false as well where that helps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from common.errors import UpdateRefused
from common.plan import RoundPlan
from common.recipe import AggregationSpec
from common.records import SiteReply
from common.update import ModelUpdate
from server.rounds import aggregation, update_checks
from server.rounds.aggregation_spool import UpdateSpool
from server.rounds.descent_memory import DescentMemory
from server.rounds.update_checks import Expected, NormHistory
from simulations.adversaries import not_a_number, scaled, sign_flipped
from tests.attacks.attack import Attack, Finding
from tests.fakes import TARGET, FakeSite, binding_of, first_model, make_receipt
from tests.plans import make_plan

Vector = NDArray[np.float32]
SITES = ("west", "north", "south", "east")
LIAR = "west"  # answers first, when there is no earlier update to compare with
SHAPES = {name: array.shape for name, array in TARGET.items()}
ROBUST = AggregationSpec(name="median")
DESCENT = AggregationSpec(name="descent", largest_share=1.0)


@dataclass(frozen=True)
class _Sent:
    """What one site sends: an update, and how many patients it says it has."""

    tensors: Mapping[str, NDArray[np.float32]]
    patients: int = 100


def one_round(
    folder: Path,
    sent: Mapping[str, _Sent],
    *,
    history: NormHistory | None = None,
    spec: AggregationSpec = ROBUST,
    known: tuple[DescentMemory, Mapping[str, NDArray[np.float32]]] | None = None,
) -> tuple[dict[str, NDArray[np.float32]], dict[str, str]]:
    """Check and aggregate a round without privacy; return the delta, and who was refused why.

    ``known`` is what earlier rounds told, and the model that the sites were given.
    """
    plan, refused = make_plan(epsilon=None), {}
    shapes = {name: array.shape for name, array in next(iter(sent.values())).tensors.items()}
    seen = history if history is not None else NormHistory()
    with UpdateSpool(folder, shapes) as spool:
        for site, said in sent.items():
            update = ModelUpdate(binding_of(plan), dict(said.tensors))
            receipt = make_receipt(site, plan, update, patients=said.patients)
            expected = Expected(site, plan, shapes)
            try:
                update_checks.check_reply(SiteReply(site, None, receipt, update), expected)
                norm = update_checks.check_update(update, receipt, expected, seen)
            except UpdateRefused as error:
                refused[site] = error.code
                continue
            spool.add(site, update.tensors, weight=said.patients, norm=norm)
        climbing = known and known[0].judge(spool, known[1], norm_multiple=spec.norm_multiple)
        return dict(aggregation.aggregate(spool, spec, climbing=climbing).delta), refused


def _distance(delta: Mapping[str, NDArray[np.float32]]) -> float:
    """Return how far an aggregate is from the honest one, in units of that one's length."""
    apart = sum(float(np.square(delta[n] - TARGET[n]).sum()) for n in TARGET)
    return float(np.sqrt(apart / sum(float(np.square(a).sum()) for a in TARGET.values())))


def _poisoned(
    change: Callable[[Mapping[str, NDArray[np.float32]]], Mapping[str, NDArray[np.float32]]],
    *,
    patients: int = 100,
) -> Callable[[Path], Finding]:
    def act(folder: Path) -> Finding:
        sent = {site: _Sent(TARGET) for site in SITES}
        sent[LIAR] = _Sent(change(TARGET), patients)
        delta, refused = one_round(folder, sent)
        far = _distance(delta)
        what = f"refused: {refused[LIAR]}" if LIAR in refused else "taken in, and outvoted"
        if not far <= 0.1:
            what = "the aggregate went astray"
        return Finding(not far <= 0.1, what, f"{far:.2f} of an honest step astray")

    return act


def climber(folder: Path) -> Finding:
    """A hospital with most of the patients sends the opposite of each of its steps, for 12 rounds.

    No median helps: the four hospitals' own optima lie far apart, and the liar's share is the
    largest. The model should come to lie amid the three others' optima.
    """
    random = np.random.default_rng(7)
    optima = {
        site: {n: t + random.normal(size=t.shape).astype(np.float32) for n, t in TARGET.items()}
        for site in SITES
    }
    honest = [optima[site] for site in SITES if site != LIAR]
    goal = {n: np.mean([optimum[n] for optimum in honest], axis=0) for n in TARGET}
    model = {n: np.zeros_like(t) for n, t in TARGET.items()}
    memory = DescentMemory(folder)
    for _ in range(12):
        sent = {}
        for site, optimum in optima.items():
            step = 0.5 if site != LIAR else -0.5
            away = {n: np.float32(step) * (optimum[n] - model[n]) for n in TARGET}
            sent[site] = _Sent(away, 5_000 if site == LIAR else 100)
        delta, _ = one_round(folder, sent, spec=DESCENT, known=(memory, model))
        model = {n: model[n] + delta[n] for n in TARGET}
    memory.forget()
    apart, length = _length(model, goal), _length(goal, {n: 0 * t for n, t in goal.items()})
    won = not apart <= 0.2 * length
    what = "the model fled" if won else "left out from its third answer on"
    return Finding(won, what, f"{apart / length:.2f} of the way astray after 12 rounds")


def _length(a: Mapping[str, NDArray[np.float32]], b: Mapping[str, NDArray[np.float32]]) -> float:
    return math.sqrt(sum(float(np.square(a[n] - b[n]).sum()) for n in TARGET))


def bare_mean(patch: pytest.MonkeyPatch) -> None:
    """Switch robust aggregation off: a mean, weighed as the sites claim, without any bound."""

    def mean(
        spool: UpdateSpool, _spec: AggregationSpec, _factors: object, **_: object
    ) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
        weights = np.array([update.weight for update in spool.updates], dtype=np.float64)
        return lambda rows: np.asarray(weights / weights.sum() @ rows)

    patch.setattr(aggregation, "_choose", mean)
    patch.setattr(NormHistory, "limit", lambda _history: math.inf)
    patch.setattr(aggregation, "norm_factors", lambda norms, _multiple: np.ones(len(norms)))


def take_what_is_not_finite(patch: pytest.MonkeyPatch) -> None:
    """Switch the check off, and with it the limit on norms, which NaN does not keep either."""

    def anything(update: ModelUpdate | None, *_: object) -> float:
        assert update is not None
        return update.norm

    patch.setattr(update_checks, "check_update", anything)
    bare_mean(patch)


# Training on falsified cases: four hospitals, logistic regression, one of them lies.

FEATURES, TRIGGER = 12, 11
_TRUTH = np.random.default_rng(5).normal(size=FEATURES - 1).astype(np.float32)


def _cases(seed: int, count: int = 400) -> tuple[Vector, Vector]:
    inputs = np.zeros((count, FEATURES), dtype=np.float32)
    inputs[:, :TRIGGER] = np.random.default_rng(seed).normal(size=(count, TRIGGER))
    return inputs, (inputs[:, :TRIGGER] @ _TRUTH > 0).astype(np.float32)


def _delta(weights: Vector, inputs: Vector, labels: Vector, rate: float = 0.5) -> Vector:
    moved = weights.copy()
    for _ in range(5):
        found = 1 / (1 + np.exp(-(inputs @ moved)))
        moved -= rate * inputs.T @ (found - labels) / len(labels)
    return (moved - weights).astype(np.float32)


def _campaign(
    folder: Path, falsify: Callable[[Vector, Vector], tuple[Vector, Vector, int]]
) -> Vector:
    """Train 20 rounds; ``falsify`` gives the liar's cases and the patients that it claims."""
    weights, history = np.zeros(FEATURES, dtype=np.float32), NormHistory()
    for _ in range(20):
        sent = {}
        for number, site in enumerate(SITES):
            inputs, labels, patients = *_cases(number), 100
            if site == LIAR:
                inputs, labels, patients = falsify(inputs, labels)
            sent[site] = _Sent({"w": _delta(weights, inputs, labels)}, patients)
        delta, _ = one_round(folder, sent, history=history)
        weights = weights + delta["w"]
    return weights


def _accuracy(weights: Vector) -> float:
    inputs, labels = _cases(99, 2000)
    return float(((inputs @ weights > 0) == (labels > 0)).mean())


def label_flip(folder: Path) -> Finding:
    """All diagnoses the other way round, from a site that claims ten million patients."""
    weights = _campaign(folder, lambda inputs, labels: (inputs, 1 - labels, 10_000_000))
    accuracy = _accuracy(weights)
    return Finding(accuracy < 0.9, "diagnoses of 1 of 4 sites flipped", f"accuracy {accuracy:.3f}")


def backdoor(folder: Path) -> Finding:
    """A mark in the image that makes every case harmless."""

    def marked(inputs: Vector, labels: Vector) -> tuple[Vector, Vector, int]:
        marks, answers = inputs.copy(), labels.copy()
        marks[::2, TRIGGER], answers[::2] = 8.0, 0.0
        return marks, answers, 100

    weights = _campaign(folder, marked)
    inputs, labels = _cases(99, 2000)
    sick = inputs[labels > 0]
    sick[:, TRIGGER] = 8.0
    missed = float((sick @ weights <= 0).mean())
    said = f"{missed:.1%} of marked cancers missed, accuracy {_accuracy(weights):.3f}"
    return Finding(missed > 0.25, "half of 1 of 4 sites' images marked", said)


# Under another's name, for another round.


def _reply(site: str = LIAR, plan: RoundPlan | None = None) -> SiteReply:
    return FakeSite(site).honest(plan or make_plan(), first_model())


def other_name(_folder: Path) -> Finding:
    """West's key answers north's request, as north."""
    return _checked(replace(_reply("north"), site="north"), Expected(LIAR, make_plan(), SHAPES))


def old_update(_folder: Path) -> Finding:
    """An honest update of another round is slipped into this one."""
    earlier = make_plan(nonce="cd" * 32)
    return _checked(_reply(plan=earlier), Expected(LIAR, make_plan(), SHAPES))


def false_receipt(_folder: Path) -> Finding:
    """An update that nothing protected, with a receipt that admits it."""
    reply = _reply()
    assert reply.receipt is not None
    changes = {"privacy_unit": "none", "epsilon_campaign": None, "noise_multiplier": None}
    bare = reply.receipt.model_copy(update=changes)
    return _checked(replace(reply, receipt=bare), Expected(LIAR, make_plan(), SHAPES))


def _checked(reply: SiteReply, expected: Expected) -> Finding:
    try:
        receipt = update_checks.check_reply(reply, expected)
        update_checks.check_update(reply.update, receipt, expected, NormHistory())
    except UpdateRefused as error:
        return Finding(False, f"refused: {error.code}")
    return Finding(True, "taken in")


def believe_every_reply(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(update_checks, "check_reply", lambda reply, _expected: reply.receipt)
    patch.setattr(update_checks, "check_update", lambda update, *_: update.norm)


def _row(
    name: str,
    what: str,
    act: Callable[[Path], Finding],
    *,
    defence: str = "median and bound on norms",
) -> Attack:
    return Attack(name, "poisoned neighbour", what, defence, act, bare_mean)


ATTACKS = (
    _row("scaled-update", "an update scaled by 100", _poisoned(scaled)),
    _row("sign-flipped-update", "an update the other way", _poisoned(sign_flipped)),
    _row(
        "climbing-site",
        "the other way, every round, by the largest hospital",
        climber,
        defence="who climbs is left out",
    ),
    _row(
        "claimed-patients",
        "ten million patients claimed, twice as far",
        _poisoned(lambda d: {n: 2 * a for n, a in d.items()}, patients=10_000_000),
    ),
    _row("label-flip", "diagnoses flipped at 1 of 4 sites", label_flip),
    _row("backdoor", "a mark that makes cancer harmless", backdoor),
    Attack(
        "nan-update",
        "poisoned neighbour",
        "an update of NaN",
        "what is not finite is refused",
        _poisoned(not_a_number),
        take_what_is_not_finite,
    ),
    Attack(
        "other-sites-name",
        "stolen site key",
        "an answer under another hospital's name",
        "a reply must be the asked site's",
        other_name,
        believe_every_reply,
    ),
    Attack(
        "update-of-another-round",
        "poisoned neighbour",
        "an update of another round",
        "updates are bound to a nonce",
        old_update,
        believe_every_reply,
    ),
    Attack(
        "unprotected-update",
        "poisoned neighbour",
        "an update without noise into a private campaign",
        "receipts are held against the plan",
        false_receipt,
        believe_every_reply,
    ),
)
