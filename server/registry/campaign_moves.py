"""A campaign's transitions, each one durable transaction together with its line in the audit log.

Whoever takes a campaign gets a new epoch and holds it (`Fence`). Each later write of theirs is
checked against the row in the same transaction, so that a ServerApp that was given up for dead,
and was only slow, cannot write into what another one drives now, nor into a cancelled campaign.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from common.audit import AuditLog
from common.audit_entries import CampaignMoved
from common.errors import NotFound, RoundFailed
from common.moments import utc_now
from server.registry import rows
from server.registry.campaign_states import (
    DRIVEN,
    ENDED,
    Action,
    CampaignState,
    after,
)
from server.registry.records import Campaign
from server.registry.sessions import Sessions
from server.registry.tables import CampaignRow, RoundRow


@dataclass
class Fence:
    """The campaigns that this process drives, and the epoch in which it took each."""

    held: dict[str, int] = field(default_factory=dict)

    def check(self, session: Session, campaign: str) -> None:
        """Refuse a write into a campaign that was taken away; one never taken is not checked.

        Raises
        ------
        RoundFailed
            With code ``campaign-lost``.
        """
        if campaign not in self.held:
            return
        row = session.get(CampaignRow, campaign, with_for_update=True)
        if row is None or row.epoch != self.held[campaign] or row.state not in DRIVEN:
            raise RoundFailed(
                f"Campaign {campaign} is not driven from here any more.",
                meaning="It was paused, cancelled or failed, or another ServerApp has taken it.",
                action=f"`wardround coordinator campaign show {campaign}` says which.",
                code="campaign-lost",
            )


class CampaignMoves:
    """What may happen to a campaign; the rules are `server.registry.campaign_states`'s.

    Parameters
    ----------
    sessions : Sessions
        On the registry's database.
    audit : AuditLog
        The coordinator's, in the same database.
    fence : Fence
        What this process drives.
    """

    def __init__(self, sessions: Sessions, audit: AuditLog, fence: Fence) -> None:
        self._sessions = sessions
        self._audit = audit
        self._fence = fence

    def take(self, identifier: str, *, flower_run: int | None = None) -> Campaign:
        """Drive a created or interrupted campaign from now on; of several callers one can."""

        def change(row: CampaignRow) -> None:
            row.epoch += 1
            row.started_at = row.started_at or utc_now()
            row.flower_run = None if flower_run is None else str(flower_run)
            row.failure = None

        taken = self._move(identifier, "take", change)
        self._fence.held[identifier] = taken.epoch
        return taken

    def finish(self, identifier: str) -> Campaign:
        """Say that it came to its end."""
        return self._move(identifier, "finish")

    def fail(self, identifier: str, reason: str, *, code: str | None = None) -> Campaign:
        """Say that it cannot go on by itself; does nothing where it has ended already."""
        found = self._campaign(identifier)
        if found.state in (*ENDED, "paused"):
            return found
        return self._move(identifier, "fail", _because(reason), code=code)

    def interrupt(self, identifier: str, reason: str, *, code: str | None = None) -> Campaign:
        """Say that whoever drove it is gone; does nothing where nobody did."""
        if self._campaign(identifier).state not in DRIVEN:
            return self._campaign(identifier)

        def change(row: CampaignRow) -> None:
            row.failure, row.launched_at = reason, None

        return self._move(identifier, "interrupt", change, code=code)

    def pause(self, identifier: str) -> Campaign:
        """Let the round in progress be the last one for now."""
        return self._move(identifier, "pause")

    def settle(self, identifier: str) -> Campaign:
        """Say that the round in progress is over: what was to be paused is."""
        return self._move(identifier, "settle")

    def resume(self, identifier: str) -> Campaign:
        """Let it go on; its next ServerApp takes it where it was."""

        def change(row: CampaignRow) -> None:
            row.failure = row.finished_at = row.launched_at = None
            row.launches = 0

        return self._move(identifier, "resume", change)

    def cancel(self, identifier: str) -> Campaign:
        """End it for ever."""
        return self._move(identifier, "cancel")

    def note_launch(self, identifier: str) -> Campaign:
        """Record that a Flower run was started for it."""
        with self._sessions.writing() as session:
            row = campaign_row(session, identifier, lock=True)
            row.launches, row.launched_at = row.launches + 1, utc_now()
        return rows.campaign(row)

    def _campaign(self, identifier: str) -> Campaign:
        with self._sessions.reading() as session:
            return rows.campaign(campaign_row(session, identifier))

    def _move(
        self,
        identifier: str,
        action: Action,
        change: Callable[[CampaignRow], None] = lambda _row: None,
        *,
        code: str | None = None,
    ) -> Campaign:
        with self._sessions.writing() as session:
            if action in ("finish", "settle"):  # only its driver knows
                self._fence.check(session, identifier)
            row = campaign_row(session, identifier, lock=True)
            state = cast("CampaignState", row.state)
            row.state = after(state, action, campaign=identifier)
            change(row)
            if row.state in ENDED:
                row.finished_at = utc_now()
                _close_rounds(session, identifier)
            moved = CampaignMoved(
                campaign=identifier, action=action, state=row.state, epoch=row.epoch, code=code
            )
            session.flush()
            lines = self._audit.append_in(session.connection(), moved)
        self._audit.remember(lines[-1])
        return rows.campaign(row)


def campaign_row(session: Session, identifier: str, *, lock: bool = False) -> CampaignRow:
    """Return a campaign's row.

    Raises
    ------
    NotFound
        If there is none of that id.
    """
    row = session.get(CampaignRow, identifier, with_for_update=lock)
    if row is None:
        raise NotFound(
            f"There is no campaign {identifier!r}.",
            action="`wardround coordinator campaign list` names them.",
        )
    return row


def _because(reason: str) -> Callable[[CampaignRow], None]:
    def change(row: CampaignRow) -> None:
        row.failure = reason

    return change


def _close_rounds(session: Session, identifier: str) -> None:
    query = select(RoundRow).where(RoundRow.campaign == identifier, RoundRow.state == "running")
    for open_round in session.scalars(query):
        open_round.state, open_round.finished_at = "failed", utc_now()
