"""The privacy ledger: what this site has spent, written down before it is spent.

Append-only, one line chained to the next by SHA-256. A reservation is committed before training
begins and is never given back: a crash, a failure or a lost reply all count as spent. Reading the
ledger, solving for the noise and appending happen in one serialised transaction, so that two
processes cannot both spend what is left.

A round without privacy is written down too, with noise multiplier 0: it cannot be counted in
epsilon, and the site's guarantee for its whole life ends with it (`Spent.rounds_without_privacy`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Self, TypeAlias

from sqlalchemy import Connection, Engine, insert, text
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from client.cases.tables import LedgerRow
from client.privacy.accounting import Accountant, Budget, epsilon
from client.privacy.ledger_lines import (
    GENESIS,
    Cost,
    LedgerLine,
    RoundRequest,
    Spent,
    check_chain,
    damaged,
    read_lines,
    refuse_other_delta,
    refuse_other_kind,
    refuse_replay,
    replayed,
    rounds_without_privacy,
    spends,
)
from client.privacy.round_cost import cost_of, noise_of
from client.settings import SiteSettings
from common.anchor import Anchor, Head
from common.database import migrate, open_database
from common.errors import StoreError

logger = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).parent.parent / "migrations"

Check: TypeAlias = Callable[[Connection], None]
"""Looks at the database before something is reserved, and raises where it must not be."""


class PrivacyLedger:
    """The ledger in one database.

    Parameters
    ----------
    engine : Engine
        From `common.database.open_database`, migrated.
    anchor : Path, optional
        A file outside the database that remembers the newest line, so that a ledger whose tail
        was cut off, or that came back from an old backup, is noticed.
    clock : callable, optional
        Returns an aware datetime; for tests.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        anchor: Path | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._engine = engine
        self._anchor = Anchor(anchor) if anchor is not None else None
        self._clock = clock

    @classmethod
    def open(cls, settings: SiteSettings) -> PrivacyLedger:
        """Open a site's ledger, its database brought up to date.

        Raises
        ------
        ConfigurationError, StoreError
            If the database cannot be used.
        """
        engine = open_database(settings.database)
        migrate(engine, MIGRATIONS)
        return cls(engine, anchor=settings.data / "ledger-head.json")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Give the database connections back."""
        self._engine.dispose()

    @property
    def engine(self) -> Engine:
        """The database, for the site's other records in it."""
        return self._engine

    def entries(self) -> tuple[LedgerLine, ...]:
        """Return all lines, oldest first.

        Raises
        ------
        StoreError
            If the database cannot be read.
        """
        try:
            with self._engine.connect() as connection:
                return read_lines(connection)
        except SQLAlchemyError as error:
            raise _unusable(error) from error

    def reserve(
        self, request: RoundRequest, budget: Budget, *, first: Check | None = None
    ) -> LedgerLine:
        """Spend one round, durably, and say how much noise it must have.

        When this returns, the line is committed: training may begin. The noise is the smallest
        that keeps the rest of the campaign within ``budget``. What ``first`` raises, asked in the
        same transaction, ends it: nothing is spent.

        Raises
        ------
        PlanRefused
            With code ``plan-replayed``: the nonce or the campaign's round was accepted before.
        PrivacyRefused
            With code ``budget-exhausted``, ``delta-changed``, ``privacy-changed`` or
            ``ledger-damaged``.
        StoreError
            If the database cannot be written.
        """
        noise = partial(noise_of, request=request, budget=budget)
        return self._reserve(request, budget.delta, noise, first, private=True)

    def forecast(self, request: RoundRequest, budget: Budget) -> Cost:
        """Say what the rounds that are left would cost; nothing is written.

        Raises
        ------
        PrivacyRefused
            As `reserve` would.
        StoreError
            If the database cannot be read.
        """
        return cost_of(self.check(request, delta=budget.delta, private=True), request, budget)

    def check(
        self, request: RoundRequest, *, delta: float, private: bool
    ) -> tuple[LedgerLine, ...]:
        """Return the lines, if a round of this kind may follow them; nothing is written.

        Raises
        ------
        PrivacyRefused
            With code ``delta-changed``, ``privacy-changed`` or ``ledger-damaged``.
        StoreError
            If the database cannot be read.
        """
        lines = self.entries()
        self._verify(lines)
        refuse_other_delta(lines, delta)
        refuse_other_kind(lines, request.campaign, private=private)
        return lines

    def reserve_without_privacy(
        self, request: RoundRequest, *, delta: float, first: Check | None = None
    ) -> LedgerLine:
        """Write down a round without privacy; raises as `reserve` does, but for the budget."""
        bare = replace(request, max_grad_norm=0.0)
        return self._reserve(bare, delta, lambda _lines: 0.0, first, private=False)

    def outcome(self, reservation: LedgerLine, outcome: str) -> LedgerLine:
        """Append what became of a reservation: ``trained``, or the code of what went wrong.

        It changes nothing about what was spent.

        Raises
        ------
        PlanRefused
            With code ``plan-replayed`` if the outcome was written before.
        """
        with self._append() as (connection, lines):
            line = replace(reservation, kind="outcome", outcome=outcome[:32])
            written = self._write(connection, lines, line)
        self._remember(written)
        return written

    def reservation(self, campaign: str, round_number: int) -> LedgerLine | None:
        """Return what was reserved for a round, if anything."""
        for line in self.entries():
            if (line.kind, line.campaign, line.round) == ("reserve", campaign, round_number):
                return line
        return None

    def spent(self, delta: float, *, kind: Accountant = "rdp") -> Spent:
        """Recompute epsilon from the lines alone, never from a stored figure.

        Parameters
        ----------
        delta : float
            The policy's.
        kind : {"rdp", "prv"}, default "rdp"
            ``prv`` is the independent recomputation; it takes seconds a campaign.
        """
        lines = self.entries()
        campaigns = dict.fromkeys(line.campaign for line in lines if line.kind == "reserve")
        return Spent(
            life=epsilon(spends(lines), delta, kind=kind),
            campaigns={c: epsilon(spends(lines, c), delta, kind=kind) for c in campaigns},
            rounds_without_privacy=rounds_without_privacy(lines),
            delta=delta,
        )

    def verify_chain(self) -> int:
        """Check every line against its digest, its predecessor and the anchor.

        Returns
        -------
        int
            The number of lines.

        Raises
        ------
        PrivacyRefused
            With code ``ledger-damaged``.
        """
        lines = self.entries()
        self._verify(lines)
        return len(lines)

    def _reserve(
        self,
        request: RoundRequest,
        delta: float,
        sigma: Callable[[Sequence[LedgerLine]], float],
        first: Check | None,
        *,
        private: bool,
    ) -> LedgerLine:
        with self._append() as (connection, lines):
            refuse_replay(lines, request)
            if first is not None:
                first(connection)
            refuse_other_delta(lines, delta)
            refuse_other_kind(lines, request.campaign, private=private)
            line = LedgerLine(
                sequence=0,
                kind="reserve",
                campaign=request.campaign,
                round=request.round,
                nonce=request.nonce,
                noise_multiplier=sigma(lines),
                sampling_rate=request.sampling_rate,
                steps=request.steps,
                max_grad_norm=request.max_grad_norm,
                delta=delta,
                outcome=None,
                written_at=self._clock(),
                previous="",
                digest="",
            )
            written = self._write(connection, lines, line)
        self._remember(written)
        logger.info(
            "privacy-reserved campaign=%s round=%d sigma=%.3f steps=%d",
            written.campaign,
            written.round,
            written.noise_multiplier,
            written.steps,
        )
        return written

    @contextmanager
    def _append(self) -> Iterator[tuple[Connection, tuple[LedgerLine, ...]]]:
        """Yield a serialised transaction and the verified lines; commit when the block ends."""
        try:
            with self._engine.begin() as connection:
                if connection.dialect.name == "postgresql":
                    # SQLite begins IMMEDIATE (common.database); here one writer at a time, too.
                    connection.execute(
                        text(f"LOCK TABLE {LedgerRow.__tablename__} IN SHARE ROW EXCLUSIVE MODE")
                    )
                lines = read_lines(connection)
                self._verify(lines)
                yield connection, lines
        except IntegrityError as error:
            raise replayed() from error
        except SQLAlchemyError as error:
            raise _unusable(error) from error

    def _write(
        self, connection: Connection, lines: Sequence[LedgerLine], draft: LedgerLine
    ) -> LedgerLine:
        draft = replace(
            draft,
            sequence=len(lines) + 1,
            written_at=self._clock(),
            previous=lines[-1].digest if lines else GENESIS,
        )
        line = replace(draft, digest=draft.expected_digest())
        connection.execute(insert(LedgerRow).values(vars(line)))
        return line

    def _verify(self, lines: Sequence[LedgerLine]) -> None:
        check_chain(lines)
        newest = self._newest()
        if newest is None:
            # The anchor is written before training begins, so no outcome comes without one.
            if self._anchor is not None and any(line.kind == "outcome" for line in lines):
                raise damaged("The privacy ledger's anchor is missing.")
            return
        if newest.sequence > len(lines) or lines[newest.sequence - 1].digest != newest.digest:
            raise damaged("The privacy ledger has lost lines, or is an old copy.")

    def _newest(self) -> Head | None:
        try:
            return self._anchor.read() if self._anchor is not None else None
        except StoreError as error:
            raise damaged(error.what) from error

    def _remember(self, line: LedgerLine) -> None:
        if self._anchor is not None:
            self._anchor.advance(line.sequence, line.digest)


def _unusable(error: SQLAlchemyError) -> StoreError:
    return StoreError(
        f"The privacy ledger cannot be used ({type(error).__name__}).",
        meaning="Without it nothing may be trained.",
        action="Check that the database runs and that the disk has room.",
    )
