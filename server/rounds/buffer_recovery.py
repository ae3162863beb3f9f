"""After an interruption: what was kept counts, and what is gone is called so."""

from __future__ import annotations

from dataclasses import replace

from server.audit import note_kept
from server.rounds.buffered_step import BufferedStep, record, turn_plan
from server.rounds.link import Link
from server.rounds.replies import Answer
from server.rounds.sent_requests import SentRequest
from server.rounds.turns import Turn, Turns
from server.rounds.update_checks import Expected


def recover(link: Link, step: BufferedStep, turns: Turns) -> None:
    """Bring registry, audit log and turns into line with the answers that were kept.

    What was kept counts, whatever was written after it. What the registry calls accepted and is
    not there any more (a campaign that failed keeps nothing) is called dropped; where it was
    the site's newest turn, the site sends it again.
    """
    told = link.registry.contributions(step.campaign.id, number=step.number)
    accepted = {(c.site, c.receipt.round): c for c in told if c.outcome == "accepted" and c.receipt}
    kept = {(h.site, h.receipt.round): h for h in step.buffer.headers}
    for key in accepted.keys() - kept.keys():
        site, number = key
        dropped = replace(accepted[key], outcome="failed", code="answer-dropped")
        link.registry.record_contribution(dropped)
        newest = turns.of(site)
        if newest is not None and newest.number == number:
            turns.settle(site, "asked")
    for (site, number), header in kept.items():
        if (site, number) not in accepted:
            turn = Turn(number=number, base_digest=header.receipt.base_digest, evaluate=False)
            plan = turn_plan(step, turn).model_copy(update={"nonce": header.receipt.nonce})
            note_kept(link.registry.audit, header, plan)
            request = SentRequest(0, 0, link.clock.monotonic(), Expected(site, plan, {}))
            answer = Answer(
                "accepted", receipt=header.receipt, norm=header.norm, bytes=header.bytes
            )
            record(link, step, request, answer)
        newest = turns.of(site)
        if newest is not None and newest.number == number:
            turns.settle(site, "answered")


def leave_over(link: Link, step: BufferedStep) -> None:
    """Say of a step's updates that no step came of them: they are not in the model."""
    for told in link.registry.contributions(step.campaign.id, number=step.number):
        if told.outcome == "accepted":
            unused = replace(told, outcome="failed", code="step-not-taken")
            link.registry.record_contribution(unused)
