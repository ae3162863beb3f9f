"""How long Flower keeps a request for its answer, beside how long a site may begin with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from flwr.app import Message
from flwr.server.superlink.linkstate.utils import verify_message_ids

from common.plan import RoundPlan
from common.wire import records_to_request
from server.registry.records import BufferSettings
from server.rounds.exchange import PAUSE_SECONDS
from server.rounds.sent_requests import answer_seconds
from tests.server.campaigns import Coordinator, three


def still_waited_for(message: Message, *, after: float) -> bool:
    """As the SuperLink finds it, so many seconds after it was made."""
    message.metadata.__dict__["_message_id"] = "a" * 64
    now = message.metadata.created_at + after
    found = {"a" * 64: message}
    return not verify_message_ids({"a" * 64}, found, run_id=1, current_time=now)


def pushed(coordinator: Coordinator) -> list[tuple[Message, RoundPlan]]:
    found = []
    for message in coordinator.grid.pushed:
        if message.metadata.message_type in ("train", "evaluate"):
            signed, _ = records_to_request(message.content)
            plan = RoundPlan.model_validate_json(signed.payload)
            if plan.purpose != "preflight":
                found.append((message, plan))
    return found


@pytest.mark.parametrize("buffered", [False, True])
@pytest.mark.parametrize(("deadline", "attempts"), [(14_400.0, 1), (3600.0, 3), (100.0, 1)])
def test_an_answer_is_kept_for_as_long_as_it_is_waited_for(
    tmp_path: Path, deadline: float, attempts: int, buffered: bool
) -> None:
    coordinator = three(tmp_path)
    rule = BufferSettings(size=2, site_rounds=20, max_staleness=10, quorum_steps=5)
    campaign = coordinator.create(
        rounds=2,
        round_deadline_seconds=deadline,
        attempts=attempts,
        site_wait_seconds=60.0,
        buffer=rule if buffered else None,
    )
    coordinator.run(campaign)
    longest = attempts * (deadline + 60.0) + (attempts - 1) * max(PAUSE_SECONDS)
    requests = pushed(coordinator)
    assert {plan.purpose for _, plan in requests} == {"train", "evaluate"}
    for message, plan in requests:
        assert still_waited_for(message, after=longest)
        assert still_waited_for(message, after=coordinator.settings.plan_seconds - 1)
        # When a site may begin is another matter: the signed plan says so, and did not change.
        assert plan.expires_at - plan.issued_at == coordinator.settings.plan_seconds
    assert answer_seconds(campaign.settings) >= longest
