"""What one exchange with the sites asks for, and what it brought."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from flwr.app import ArrayRecord

from common.evaluation import SiteEvaluation
from common.plan import RoundPlan
from common.records import Receipt
from common.wire import PackedStep
from server.rounds.control_variates import SentCorrection
from server.rounds.kept_answers import AnswerHeader


@dataclass(frozen=True)
class Request:
    """What all sites are asked in one round.

    Attributes
    ----------
    number : int
        The round's in the registry (the plan's may differ: it stays within the campaign).
    plan : RoundPlan
        Each site gets a copy with its own nonce and times.
    tensors : ArrayRecord
        The packed base model.
    shapes : mapping of str to tuple of int
        Of the trainable tensors, exactly those that an update must have.
    quorum : int
        Successes that are needed.
    step : PackedStep, optional
        What leads to ``tensors``; for sites that answered about the model it starts from.
    kept : tuple of AnswerHeader
        What sites answered before the round was interrupted: they are not asked again.
    resumed : bool
        Whether the round began before: what was sent then, and to whom, is not known.
    correction : callable
        What a site, by name, is to add to its gradients (SCAFFOLD); nothing by default.
    """

    number: int
    plan: RoundPlan
    tensors: ArrayRecord
    shapes: Mapping[str, tuple[int, ...]]
    quorum: int
    kept: tuple[AnswerHeader, ...] = ()
    step: PackedStep | None = None
    resumed: bool = False
    correction: Callable[[str], SentCorrection | None] = lambda _: None


@dataclass
class Collected:
    """What a round's exchange brought; ``faults`` has a code for each site without success.

    ``caught`` names the sites of which an answer was refused for what was in it, before an
    interruption of the round, too.
    """

    quorum: int
    accepted: dict[str, Receipt] = field(default_factory=dict)
    evaluations: dict[str, SiteEvaluation] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    caught: set[str] = field(default_factory=set)

    @property
    def refused(self) -> int:
        """How many sites were caught, and have no update in the round."""
        return len(self.caught - self.accepted.keys())

    @property
    def met(self) -> bool:
        """Whether there are enough successes."""
        return len(self.accepted) >= self.quorum

    def why_not(self) -> str:
        """Return who is missing, and why, as one sentence."""
        faults = ", ".join(f"{site} ({code})" for site, code in sorted(self.faults.items()))
        return (
            f"{len(self.accepted)} of the {self.quorum} sites that are needed succeeded; "
            f"missing: {faults or 'no other site is connected'}."
        )
