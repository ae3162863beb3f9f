"""The registry: sites, campaigns, rounds, contributions, candidates and releases.

Every write is one durable transaction, made as the thing happens, so that whoever reads the
registry sees a campaign's progress, and a crash leaves a true account of what came before it.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from sqlalchemy import Engine, select

from common.anchor import Anchor
from common.audit import AuditLog
from common.audit_entries import CampaignMoved, Entry
from common.audit_lines import AuditLine
from common.database import migrate, open_database
from common.errors import InputRefused, NotFound, StoreError
from common.evaluation import Metrics
from common.moments import utc_now
from common.recipe import Recipe
from server.accounts.store import Accounts
from server.protocol import protocol_locked
from server.registry import rows
from server.registry.campaign_moves import CampaignMoves, campaign_row
from server.registry.campaign_states import CampaignState
from server.registry.decision_checks import Ring
from server.registry.records import (
    Campaign,
    CampaignKind,
    CampaignSettings,
    Contribution,
    Deviation,
    Purpose,
    Round,
    RoundState,
    Site,
    SiteForecast,
)
from server.registry.releases import ReleaseRecords
from server.registry.sessions import Sessions
from server.registry.site_history import SiteHistory
from server.registry.tables import (
    AUDIT,
    CampaignRow,
    ContributionRow,
    ForecastRow,
    RoundRow,
    SiteRow,
)
from server.settings import CoordinatorSettings
from server.triggers.signals import keep_statuses

MIGRATIONS = Path(__file__).parent.parent / "migrations"


class Registry(ReleaseRecords):
    """The coordinator's registry in SQLite or PostgreSQL.

    Parameters
    ----------
    engine : sqlalchemy.Engine
        As `common.database.open_database` opens it, the schema being up to date.
    anchor : Path, optional
        File of the audit log's newest line; see `common.anchor`.
    first_ring : sequence of str, optional
        The sites that take a release first which no person approves; by default every site.
    """

    def __init__(
        self, engine: Engine, *, anchor: Path | None = None, first_ring: Ring = None
    ) -> None:
        remembered = Anchor(anchor) if anchor is not None else None
        audit = AuditLog(engine, AUDIT, anchor=remembered)
        super().__init__(Sessions(engine), audit, first_ring=first_ring)
        self.accounts = Accounts(self._sessions, audit)
        self.moves = CampaignMoves(self._sessions, self.audit, self.fence)
        self.history = SiteHistory(self._sessions)
        self._engine = engine

    @classmethod
    def open(cls, settings: CoordinatorSettings) -> Registry:
        """Open the registry of a coordinator folder, and bring its schema up to date.

        Raises
        ------
        StoreError
            If the database cannot be used.
        """
        engine = open_database(settings.database)
        migrate(engine, MIGRATIONS)
        anchor = settings.data / "audit-head.json"
        return cls(engine, anchor=anchor, first_ring=settings.canary_sites or None)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def register_site(self, name: str, *, node_id: int, public_key: str) -> Site:
        """Add a site, or change its node id and key.

        Raises
        ------
        InputRefused
            With code ``node-id-taken``, if another site has that node id.
        """
        row = SiteRow(
            name=name, node_id=str(node_id), public_key=public_key, registered_at=utc_now()
        )
        try:
            with self._sessions.writing() as session:
                row = session.merge(row)
        except StoreError as error:
            if error.code != "registry-conflict":
                raise
            raise InputRefused(
                f"Another site than {name} has this node id.", code="node-id-taken"
            ) from error
        return rows.site(row)

    def sites(self) -> tuple[Site, ...]:
        """Return all registered sites, by name."""
        return tuple(
            rows.site(row) for row in self._sessions.all(select(SiteRow).order_by(SiteRow.name))
        )

    def add_campaign(
        self,
        recipe: Recipe,
        settings: CampaignSettings,
        *,
        initial_digest: str,
        base_release: int | None = None,
        goes_at_once: bool = False,
    ) -> Campaign:
        """Record a new campaign; its id sorts by time.

        The protocol that its settings hold is locked into the audit log in the same transaction:
        a campaign without its line would be held to limits that nobody can prove. With
        ``goes_at_once`` it is interrupted from the start: who keeps the campaigns goes on with it,
        and nothing else has to be done, before which a crash could leave it where it is.
        """
        now = utc_now()
        row = CampaignRow(
            id=f"{now:%Y%m%d-%H%M%S-%f}-{secrets.token_hex(2)}",
            task=recipe.name,
            recipe=recipe.model_dump_json(),
            settings=settings.model_dump_json(),
            state="interrupted" if goes_at_once else "created",
            base_release=base_release,
            initial_digest=initial_digest,
            created_at=now,
        )
        entries: list[Entry] = []
        if settings.protocol is not None:
            entries.append(protocol_locked(row.id, settings.protocol))
        if goes_at_once:
            moved = CampaignMoved(campaign=row.id, action="resume", state=row.state, epoch=0)
            entries.append(moved)
        lines: tuple[AuditLine, ...] = ()
        with self._sessions.writing() as session:
            session.add(row)
            session.flush()
            if entries:
                lines = self.audit.append_in(session.connection(), *entries)
        if lines:
            self.audit.remember(lines[-1])
        return rows.campaign(row)

    def campaign(self, identifier: str) -> Campaign:
        """Return a campaign.

        Raises
        ------
        NotFound
            If there is none of that id.
        """
        with self._sessions.reading() as session:
            return rows.campaign(campaign_row(session, identifier))

    def campaigns(
        self, *, state: CampaignState | None = None, kind: CampaignKind | None = None
    ) -> tuple[Campaign, ...]:
        """Return campaigns, the newest first: all, or those in a state or of a kind."""
        query = select(CampaignRow).order_by(CampaignRow.created_at.desc(), CampaignRow.id.desc())
        if state is not None:
            query = query.where(CampaignRow.state == state)
        found = (rows.campaign(row) for row in self._sessions.all(query))
        return tuple(c for c in found if kind is None or c.kind == kind)

    def start_campaign(self, identifier: str, *, flower_run: int | None = None) -> Campaign:
        """Drive a created or interrupted campaign from now on; only one caller can.

        Later writes of this registry into it are refused (code ``campaign-lost``) once it is
        taken away.

        Raises
        ------
        NotFound
            If there is none of that id.
        RoundFailed
            With code ``campaign-state``, if it cannot be taken.
        """
        return self.moves.take(identifier, flower_run=flower_run)

    def finish_campaign(self, identifier: str) -> None:
        """Mark a campaign as finished."""
        self.moves.finish(identifier)

    def fail_campaign(self, identifier: str, reason: str) -> None:
        """Mark a campaign and its open rounds as failed, unless it has ended."""
        self.moves.fail(identifier, reason)

    def start_round(
        self, campaign: str, number: int, *, purpose: Purpose, base_digest: str
    ) -> None:
        """Record that a round begins, or goes on after an interruption.

        Scoring may begin again, of another model, too: it costs no privacy, and meanwhile
        another release may be current, or the campaign may have trained on.

        Raises
        ------
        StoreError
            With code ``registry-conflict``, if it was to do something else; where it trains, if
            it is finished, or began from another model.
        """
        with self._sessions.writing() as session:
            self.fence.check(session, campaign)
            row = session.get(RoundRow, (campaign, number))
            if row is None:
                session.add(
                    RoundRow(
                        campaign=campaign,
                        number=number,
                        purpose=purpose,
                        state="running",
                        base_digest=base_digest,
                        started_at=utc_now(),
                    )
                )
                return
            same = row.base_digest == base_digest and row.state != "finished"
            if row.purpose != purpose or (purpose == "train" and not same):
                raise StoreError(
                    f"Round {number} of campaign {campaign} is {row.state} already.",
                    meaning="Two programs write the same campaign.",
                    code="registry-conflict",
                )
            row.state, row.finished_at = "running", None
            row.base_digest, row.metrics = base_digest, None

    def end_round(
        self,
        campaign: str,
        number: int,
        *,
        state: RoundState = "finished",
        aggregate_digest: str | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """Record how a round ended; ``metrics`` are of its base model.

        One that trained ends the count of launches. A scoring does not: what dies after each would
        be started for ever, and use up what the sites allow.
        """
        with self._sessions.writing() as session:
            self.fence.check(session, campaign)
            row = session.get(RoundRow, (campaign, number))
            if row is None:
                raise NotFound(f"Campaign {campaign} has no round {number}.")
            row.state, row.finished_at = state, utc_now()
            if state == "finished" and row.purpose == "train":
                campaign_row(session, campaign, lock=True).launches = 0
            row.aggregate_digest = aggregate_digest
            row.metrics = None if metrics is None else metrics.model_dump_json()

    def rounds(self, campaign: str) -> tuple[Round, ...]:
        """Return a campaign's rounds in order."""
        query = select(RoundRow).where(RoundRow.campaign == campaign).order_by(RoundRow.number)
        return tuple(rows.round_(row) for row in self._sessions.all(query))

    def record_contribution(self, contribution: Contribution) -> None:
        """Record what became of a request, in place of an earlier record of the same attempt."""
        with self._sessions.writing() as session:
            self.fence.check(session, contribution.campaign)
            session.merge(rows.contribution_row(contribution, utc_now()))

    def note_deviations(
        self, campaign: str, number: int, deviations: Mapping[str, Deviation]
    ) -> None:
        """Record how far each accepted update of a round lay from the others, by site."""
        row = ContributionRow
        query = select(row).where(
            row.campaign == campaign, row.round == number, row.outcome == "accepted"
        )
        with self._sessions.writing() as session:
            self.fence.check(session, campaign)
            for found in session.scalars(query):
                if found.site in deviations:
                    found.update_cosine = deviations[found.site].cosine
                    found.update_distance = deviations[found.site].distance

    def record_forecasts(self, campaign: str, forecasts: Sequence[SiteForecast]) -> None:
        """Record what the sites said that a campaign would cost them.

        What they told of themselves goes to the triggers, where the campaign only asks: what
        they tell at the beginning of one that trains is trained on by it.
        """
        with self._sessions.writing() as session:
            self.fence.check(session, campaign)
            asked = rows.campaign(campaign_row(session, campaign))
            if asked.settings.only_preflight:
                answers = [one.forecast for one in forecasts if one.forecast is not None]
                keep_statuses(session, asked.recipe.name, answers, now=utc_now())
            for told in forecasts:
                detail = told.forecast
                session.merge(
                    ForecastRow(
                        campaign=campaign,
                        site=told.site,
                        code=told.code,
                        refuses=told.refuses,
                        forecast=None if detail is None else detail.model_dump_json(),
                        recorded_at=utc_now(),
                    )
                )

    def forecasts(self, campaign: str) -> tuple[SiteForecast, ...]:
        """Return what the sites said before a campaign, by site."""
        query = select(ForecastRow).where(ForecastRow.campaign == campaign)
        found = self._sessions.all(query.order_by(ForecastRow.site))
        return tuple(rows.forecast(row) for row in found)

    def contributions(
        self, campaign: str, *, number: int | None = None
    ) -> tuple[Contribution, ...]:
        """Return the contributions of a campaign, or of one of its rounds, in order."""
        row = ContributionRow
        query = select(row).where(row.campaign == campaign)
        if number is not None:
            query = query.where(row.round == number)
        query = query.order_by(row.round, row.attempt, row.site)
        return tuple(rows.contribution(found) for found in self._sessions.all(query))
