"""Fakes of what the round loop talks to: a clock with hands to turn, sites without torch, a grid.

A fake site's network is a linear one of six weights and two biases; training moves it towards
the site's own target, and its holdout answers get better as it comes nearer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from flwr.app import Error, Message, MessageType, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray

from common.compression import Packed, apparent_shapes, decode
from common.evaluation import SiteEvaluation, evaluate_predictions
from common.plan import RoundPlan
from common.recipe import (
    DecisionSpec,
    FederationSpec,
    ImageSpec,
    LocalTraining,
    ModelSpec,
    PrivacySpec,
    Recipe,
)
from common.records import Forecast, Receipt, Refusal, SiteReply
from common.update import ModelUpdate, UpdateBinding, apply, tensors_digest
from common.wire import (
    SiteDescription,
    description_to_records,
    records_to_query,
    records_to_request,
    records_to_step,
    reply_to_records,
)

CLASSES = ("benign", "malignant")
TARGET = {
    "head.weight": np.array([[1, -1, 2], [-1, 1, -2]], dtype=np.float32),
    "head.bias": np.array([0.5, -0.5], dtype=np.float32),
}
TRAINABLE = tuple(TARGET)


def toy_recipe(**federation: object) -> Recipe:
    return Recipe(
        name="toy",
        title="Toy",
        images="none",
        classes=CLASSES,
        image=ImageSpec(size=16),
        model=ModelSpec(architecture="linear"),
        privacy=PrivacySpec(training=LocalTraining(learning_rate=1.0)),
        federation=FederationSpec.model_validate({"rounds": 3, "quorum": 2} | federation),
        decision=DecisionSpec(positive_classes=("malignant",)),
    )


def first_model() -> dict[str, NDArray[np.generic]]:
    zeros: dict[str, NDArray[np.generic]] = {n: np.zeros_like(a) for n, a in TARGET.items()}
    return zeros | {"batches": np.array(7, dtype=np.int64)}


class FakeClock:
    """Time passes only when somebody sleeps."""

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        self.time = start
        self.slept = 0.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.time += max(seconds, 1e-3)
        self.slept += max(seconds, 1e-3)
        assert self.slept < 100_000, "the loop waits for ever"


@dataclass
class FakeSite:
    """A site with a behaviour; the default one is honest.

    ``behave`` gets the honest reply and the plan and returns what is really sent: records, an
    error, or None for silence. ``delay`` is in the clock's seconds.
    """

    name: str
    patients: int = 100
    delay: float = 0.0
    holdout: int = 60
    speed: float = 0.5
    behave: Callable[[SiteReply, RoundPlan], RecordDict | Error | None] | None = None
    unaffordable: str | None = None
    scores: bool = True
    plans: list[RoundPlan] = field(default_factory=list)
    bases: list[str] = field(default_factory=list)
    stepped: list[int] = field(default_factory=list)
    held: dict[str, dict[str, NDArray[np.generic]]] = field(default_factory=dict)

    def answer(self, message: Message) -> RecordDict | Error | None:
        if message.metadata.message_type == MessageType.QUERY:
            records_to_query(message.content)
            return description_to_records(SiteDescription(site=self.name, software="0.1.0"))
        signed, base = records_to_request(message.content)
        plan = RoundPlan.model_validate_json(signed.payload)
        step = records_to_step(message.content)
        if step is not None:
            if step.base_digest not in self.held:
                return reply_to_records(SiteReply(self.name, refusal=Refusal(code="base-unknown")))
            packed = Packed(step.compression, base)
            base = apply(self.held[step.base_digest], decode(packed, apparent_shapes(base)))
            self.stepped.append(plan.round)
        self.held = {plan.base_digest: base}
        if plan.purpose == "preflight":
            return reply_to_records(self.forecast(plan))
        assert tensors_digest(base) == plan.base_digest
        self.plans.append(plan)
        self.bases.append(plan.base_digest)
        reply = self.honest(plan, base)
        return reply_to_records(reply) if self.behave is None else self.behave(reply, plan)

    def forecast(self, plan: RoundPlan) -> SiteReply:
        """The preflight's answer; ``unaffordable`` is the code of what stands in the way."""
        told = Forecast(
            site=self.name,
            campaign=plan.campaign,
            nonce=plan.nonce,
            rounds=plan.rounds,
            affordable=self.unaffordable is None,
            code=self.unaffordable,
            scores=self.scores,
        )
        return SiteReply(self.name, forecast=told)

    def honest(self, plan: RoundPlan, base: dict[str, NDArray[np.generic]]) -> SiteReply:
        update = None
        if plan.purpose == "train":
            delta = {
                n: (self.speed * (a - base[n].astype(np.float32))).astype(np.float32)
                for n, a in TARGET.items()
            }
            update = ModelUpdate(binding_of(plan), delta)
        receipt = make_receipt(self.name, plan, update, patients=self.patients)
        return SiteReply(self.name, None, receipt, update, self.evaluation(base))

    def evaluation(self, base: dict[str, NDArray[np.generic]]) -> SiteEvaluation:
        error = sum(float(np.square(a - base[n].astype(float)).sum()) for n, a in TARGET.items())
        scale = sum(float(np.square(a).sum()) for a in TARGET.values())
        generator = np.random.default_rng(len(self.name))
        labels = np.arange(self.holdout) % 2
        quality = 3 * (1 - np.sqrt(error / scale))
        logits = quality * (2 * labels - 1) + generator.normal(size=self.holdout)
        positive = 1 / (1 + np.exp(-logits))
        scores = np.stack([1 - positive, positive], axis=1)
        return evaluate_predictions(scores, labels, CLASSES, minimum_cell=3)


def binding_of(plan: RoundPlan) -> UpdateBinding:
    return UpdateBinding(plan.campaign, plan.round, plan.nonce, plan.base_digest)


def make_receipt(
    site: str, plan: RoundPlan, update: ModelUpdate | None, *, patients: int = 100
) -> Receipt:
    private = plan.privacy.epsilon is not None
    spent = (plan.privacy.epsilon or 0.0) * plan.round / plan.rounds
    return Receipt(
        site=site,
        campaign=plan.campaign,
        round=plan.round,
        nonce=plan.nonce,
        base_digest=plan.base_digest,
        update_digest=None if update is None else update.digest,
        privacy_unit="patient" if private else "none",
        epsilon_campaign=spent if private else None,
        epsilon_life=spent if private else None,
        delta=1e-5 if private else None,
        max_grad_norm=plan.privacy.max_grad_norm if private else None,
        noise_multiplier=1.0 if private else None,
        sampling_rate=plan.training.sampling_rate,
        steps=0 if update is None else plan.training.local_steps,
        public_patients=patients,
        seconds=0.1,
    )


def rebuilt(
    reply: SiteReply, tensors: dict[str, NDArray[np.float32]], binding: UpdateBinding | None = None
) -> RecordDict:
    """The reply with another update, whose receipt agrees with it."""
    assert reply.update is not None
    assert reply.receipt is not None
    update = ModelUpdate(binding or reply.update.binding, tensors)
    b = update.binding
    changes = {
        "update_digest": update.digest,
        "campaign": b.campaign,
        "round": b.round,
        "nonce": b.nonce,
        "base_digest": b.base_digest,
    }
    receipt = reply.receipt.model_copy(update=changes)
    return reply_to_records(replace(reply, update=update, receipt=receipt))


def silent(reply: SiteReply, plan: RoundPlan) -> None:
    return None


def broken(reply: SiteReply, plan: RoundPlan) -> Error:
    return Error(code=2, reason="Traceback: /data/patients/jane-doe.png")


def refusing(reply: SiteReply, plan: RoundPlan) -> RecordDict:
    return reply_to_records(SiteReply(reply.site, refusal=Refusal(code="budget-spent")))


def scaled(factor: float) -> Callable[[SiteReply, RoundPlan], RecordDict]:
    def behave(reply: SiteReply, plan: RoundPlan) -> RecordDict:
        if reply.update is None:
            return reply_to_records(reply)
        return rebuilt(reply, {n: a * np.float32(factor) for n, a in reply.update.tensors.items()})

    return behave


def with_bias(bias: NDArray[np.floating]) -> Callable[[SiteReply, RoundPlan], RecordDict]:
    def behave(reply: SiteReply, plan: RoundPlan) -> RecordDict:
        if reply.update is None:
            return reply_to_records(reply)
        return rebuilt(reply, {**reply.update.tensors, "head.bias": bias.astype(np.float32)})

    return behave


class FakeGrid(Grid):
    """Delivers messages to fake sites, and their answers when the clock says so."""

    def __init__(self, clock: FakeClock, sites: dict[int, FakeSite]) -> None:
        TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
        self.clock = clock
        self.sites = sites
        self.offline: set[int] = set()
        self.duplicated: set[int] = set()
        self.impostors: dict[int, int] = {}
        self.pushed: list[Message] = []
        self._due: dict[str, tuple[float, Message]] = {}

    def set_run(self, run: Run) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Run:
        raise NotImplementedError

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        return [node for node in self.sites if node not in self.offline]

    def get_nodes(self) -> Iterable[NodeInfo]:
        return [NodeInfo(node_id=node) for node in self.get_node_ids()]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        identifiers = []
        for message in messages:
            identifier = f"message-{len(self.pushed)}"
            message.metadata.__dict__["_message_id"] = identifier
            self.pushed.append(message)
            self._deliver(identifier, message)
            identifiers.append(identifier)
        return identifiers

    def _deliver(self, identifier: str, message: Message) -> None:
        site = self.sites[message.metadata.dst_node_id]
        answer = site.answer(message)
        if answer is not None:
            slow = site.delay if message.metadata.group_id != "preflight" else 0.0
            due = self.clock.monotonic() + slow
            reply = Message(answer, reply_to=message)
            source = self.impostors.get(reply.metadata.src_node_id, reply.metadata.src_node_id)
            reply.metadata.__dict__["_src_node_id"] = source
            self._due[identifier] = (due, reply)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        replies = []
        for identifier in message_ids:
            due, reply = self._due.get(identifier, (float("inf"), None))
            if reply is not None and due <= self.clock.monotonic():
                del self._due[identifier]
                replies.append(reply)
                if reply.metadata.src_node_id in self.duplicated:
                    replies.append(reply)
        return replies

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        raise NotImplementedError("Flower's own loop polls every 3 s: the round loop has its own")
