"""The states of a campaign, and what leads from one to the next: pure rules, no database.

A campaign is *created* with all that it needs. A ServerApp **takes** it, and it is *running*.
From there it is *finished*, with a candidate or, where only a preflight was asked for, without.

- Whoever drives it may die. The campaign is then *interrupted*: nothing is lost, and the next
  ServerApp takes it where it was. The keeper (`deploy.keeper`) sees to that by itself.
- A person may **pause** it. A round that is in progress is ended first (*pausing*), since sites
  have spent privacy on it; then it is *paused* until a person **resumes** it. If the driver dies
  while it is pausing, it is *paused* at once: what the sites answered is on disk.
- It has *failed* when it cannot go on by itself: the quorum was missed, the model diverged, or
  it died too often in one round. Nothing drives it any more, but its checkpoint is kept: a person
  who has seen to the cause may **resume** it.
- A person may **cancel** it. What single sites sent is removed, and it never runs again.

*finished* and *cancelled* are final. Whatever is not in the table is refused, with the state and
what to do about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from common.errors import RoundFailed

CampaignState = Literal[
    "created", "running", "interrupted", "pausing", "paused", "finished", "failed", "cancelled"
]
Action = Literal["take", "finish", "fail", "interrupt", "pause", "settle", "resume", "cancel"]
"""``interrupt``: the driver is gone; ``settle``: the round in progress is over while pausing."""

TRANSITIONS: Mapping[CampaignState, Mapping[Action, CampaignState]] = MappingProxyType(
    {
        "created": {
            "take": "running",
            "pause": "paused",
            "fail": "failed",
            "cancel": "cancelled",
        },
        "running": {
            "finish": "finished",
            "fail": "failed",
            "interrupt": "interrupted",
            "pause": "pausing",
            "cancel": "cancelled",
        },
        "pausing": {
            "settle": "paused",
            "interrupt": "paused",
            "resume": "running",
            "finish": "finished",
            "fail": "failed",
            "cancel": "cancelled",
        },
        "interrupted": {
            "take": "running",
            "resume": "interrupted",
            "pause": "paused",
            "fail": "failed",
            "cancel": "cancelled",
        },
        "paused": {"resume": "interrupted", "cancel": "cancelled"},
        "failed": {"resume": "interrupted", "cancel": "cancelled"},
        "finished": {},
        "cancelled": {},
    }
)

DRIVEN: frozenset[CampaignState] = frozenset({"running", "pausing"})
"""States in which a ServerApp is at work."""

TAKEABLE: frozenset[CampaignState] = frozenset({"created", "interrupted"})
"""States in which one may take the campaign."""

ENDED: frozenset[CampaignState] = frozenset({"finished", "failed", "cancelled"})
"""States in which nothing of a single site's is kept at the coordinator."""

FINAL: frozenset[CampaignState] = frozenset({"finished", "cancelled"})
"""States that nothing leads out of: what only such a campaign needed may go."""

_ADVICE: Mapping[CampaignState, str] = MappingProxyType(
    {
        "created": "Start it with `wardround coordinator campaign start`.",
        "running": "Watch it, or pause it first.",
        "interrupted": "It goes on by itself; `wardround coordinator campaign resume` hurries it.",
        "pausing": "It is paused when the round in progress is over.",
        "paused": "Let it go on with `wardround coordinator campaign resume`.",
        "failed": "See to the cause, then `wardround coordinator campaign resume`.",
        "finished": "Create a new campaign.",
        "cancelled": "Create a new campaign.",
    }
)


def after(state: CampaignState, action: Action, *, campaign: str) -> CampaignState:
    """Return the state that an action leads to.

    Raises
    ------
    RoundFailed
        With code ``campaign-state``; the text names the state and what to do.
    """
    reached = TRANSITIONS[state].get(action)
    if reached is None:
        raise RoundFailed(
            f"Campaign {campaign} is {state}: it cannot {_VERBS[action]}.",
            action=_ADVICE[state],
            code="campaign-state",
        )
    return reached


_VERBS: Mapping[Action, str] = MappingProxyType(
    {
        "take": "be driven from here",
        "finish": "be finished",
        "fail": "fail",
        "interrupt": "be interrupted",
        "pause": "be paused",
        "settle": "be paused now",
        "resume": "be resumed",
        "cancel": "be cancelled",
    }
)
