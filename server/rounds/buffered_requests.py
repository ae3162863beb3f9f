"""A site's next turn in buffered rounds, and the request that asks for it.

The turn is written down before it is sent. One that was sent and not answered is asked for again
about the same model: what the site may have trained, it then sends, and does not train anew.
"""

from __future__ import annotations

from dataclasses import dataclass

from flwr.app import ArrayRecord

from common.wire import PackedStep, pack_tensors
from server.model_store import ModelStore
from server.registry.records import Contribution
from server.rounds.buffered_step import BufferedStep, record, turn_plan
from server.rounds.checkpoints import Checkpoints
from server.rounds.global_model import GlobalModel
from server.rounds.link import Link
from server.rounds.replies import Answer
from server.rounds.sent_requests import SentRequest, new_request, push_request
from server.rounds.turns import Turn, Turns

USED_UP = "site-rounds-used-up"


@dataclass(frozen=True)
class OpenTurn:
    """A request that was sent and not answered yet, and whose turn it is."""

    request: SentRequest
    turn: Turn

    @property
    def site(self) -> str:
        """Who was asked."""
        return self.request.site


class BufferedRequests:
    """The requests that are open, across steps.

    Parameters
    ----------
    link : Link
        The campaign's.
    model : GlobalModel
        Its newest version is what sites are asked about.
    models : ModelStore
        Holds older versions, for sites that are asked about one again.
    checkpoints : Checkpoints
        Keeps those versions.
    turns : Turns
        What each site was asked last.
    """

    def __init__(
        self,
        link: Link,
        *,
        model: GlobalModel,
        models: ModelStore,
        checkpoints: Checkpoints,
        turns: Turns,
    ) -> None:
        self._link = link
        self._model = model
        self._models = models
        self._checkpoints = checkpoints
        self._packed: tuple[str, ArrayRecord] | None = None
        self.turns = turns
        self.open: dict[str, OpenTurn] = {}

    @property
    def busy(self) -> list[str]:
        """The sites that are at work."""
        return [opened.site for opened in self.open.values()]

    def has_turn(self, step: BufferedStep, site: str) -> bool:
        """Tell whether a site can still be asked for its newest turn, or for another one."""
        last = self.turns.of(site)
        within = _number_after(last) <= step.campaign.settings.site_rounds
        return within or (last is not None and self._is_owed(step, last))

    def ask(self, step: BufferedStep, site: str, node: int) -> None:
        """Ask a site for its next turn, or for its newest one again; leave it out without one."""
        last = self.turns.of(site)
        if last is not None and last.state == "asked":
            if self._is_owed(step, last):
                self.send(step, site, node, last)
                return
            self.note(step, site, Answer("late", "update-stale"))
        number = _number_after(last)
        if number > step.campaign.settings.site_rounds:
            self.note(step, site, Answer("absent", USED_UP))
            step.standing.leave_out(site, USED_UP)
            return
        scores = step.scored and site not in step.scores
        turn = Turn(number=number, base_digest=step.base_digest, evaluate=scores)
        self.send(step, site, node, turn)

    def send(
        self, step: BufferedStep, site: str, node: int, turn: Turn, *, whole: bool = False
    ) -> None:
        """Send a turn's request; ``whole`` where the site could not use a step of the model."""
        change = None if whole else self._change(step, site, turn)
        again = self.turns.of(site) == turn
        if not again:
            self.turns.begin(site, turn)
            self._checkpoints.hold(self.turns.bases(), purpose="turns")
        stepped = change is not None
        request = self._request(step, site, node, turn, stepped=stepped, again=again)
        model = change or self._tensors(step, turn.base_digest)
        identifier = push_request(self._link, request, model, number=step.number)
        if identifier:
            self.open[identifier] = OpenTurn(request, turn)
            return
        record(self._link, step, request, Answer("failed", "not-delivered"))
        step.standing.failed(site, "not-delivered", now=self._link.clock.monotonic())

    def note(self, step: BufferedStep, site: str, answer: Answer) -> Contribution:
        """Record what became of a site that was not asked now."""
        last = self.turns.of(site)
        number = 1 if last is None else last.number
        turn = Turn(number=number, base_digest=step.base_digest, evaluate=False)
        return record(self._link, step, self._request(step, site, 0, turn), answer)

    def _is_owed(self, step: BufferedStep, turn: Turn) -> bool:
        usable = turn.state == "asked" and step.usable(turn.base_digest)
        return usable and turn.base_digest in self._models

    def _change(self, step: BufferedStep, site: str, turn: Turn) -> PackedStep | None:
        """Return the model's newest step, where the site is known to hold what it starts from."""
        last, newest = self.turns.of(site), turn.base_digest == step.base_digest
        change = self._model.downlink.step_to(turn.base_digest) if newest else None
        if change is None or last is None or last.state == "refused":
            return None
        return change if last.base_digest == change.header.base_digest else None

    def _request(
        self,
        step: BufferedStep,
        site: str,
        node: int,
        turn: Turn,
        *,
        stepped: bool = False,
        again: bool = False,
    ) -> SentRequest:
        plan = turn_plan(step, turn)
        names = step.campaign.settings.phase(step.versions[turn.base_digest] + 1).names
        shapes = {name: self._model.weights[name].shape for name in names}
        return new_request(
            self._link,
            plan,
            shapes,
            site=site,
            node=node,
            attempt=1,
            stepped=stepped,
            again=again,
        )

    def _tensors(self, step: BufferedStep, digest: str) -> ArrayRecord:
        if digest != step.base_digest:
            return pack_tensors(self._models.load(digest))
        if self._packed is None or self._packed[0] != digest:
            self._packed = (digest, pack_tensors(self._model.weights))
        return self._packed[1]


def _number_after(turn: Turn | None) -> int:
    return 1 if turn is None else turn.number + (turn.state != "refused")
