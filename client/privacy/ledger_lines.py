"""The lines of the privacy ledger: their hash chain, and what they cost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, select

from client.cases.tables import LedgerRow
from client.privacy.accounting import Spend
from common.errors import PlanRefused, PrivacyRefused

GENESIS = "0" * 64
DELTA_TOLERANCE = 1e-12


@dataclass(frozen=True)
class LedgerLine:
    """One line. ``noise_multiplier`` is 0 for a round without privacy; times are UTC."""

    sequence: int
    kind: str
    campaign: str
    round: int
    nonce: str
    noise_multiplier: float
    sampling_rate: float
    steps: int
    max_grad_norm: float
    delta: float
    outcome: str | None
    written_at: datetime
    previous: str
    digest: str

    def expected_digest(self) -> str:
        """SHA-256 (hex) over every other field, the previous line's digest included."""
        fields = [
            self.sequence,
            self.kind,
            self.campaign,
            self.round,
            self.nonce,
            self.noise_multiplier.hex(),
            self.sampling_rate.hex(),
            self.steps,
            self.max_grad_norm.hex(),
            self.delta.hex(),
            self.outcome,
            self.written_at.astimezone(UTC).isoformat(timespec="microseconds"),
            self.previous,
        ]
        return hashlib.sha256(json.dumps(fields, separators=(",", ":")).encode()).hexdigest()

    @property
    def spend(self) -> Spend | None:
        """What the line costs; None for outcomes and rounds without privacy."""
        if self.kind != "reserve" or self.noise_multiplier == 0:
            return None
        return Spend(self.noise_multiplier, self.sampling_rate, self.steps)


@dataclass(frozen=True)
class RoundRequest:
    """What a verified plan asks to spend: ``rounds_left`` includes this round."""

    campaign: str
    round: int
    nonce: str
    rounds_left: int
    sampling_rate: float
    steps: int
    max_grad_norm: float


@dataclass(frozen=True)
class Cost:
    """What a campaign's remaining rounds would come to: upper bounds after the last of them.

    ``epsilon_life`` is None where a round without privacy has ended the guarantee.
    """

    noise_multiplier: float
    epsilon_round: float
    epsilon_campaign: float
    epsilon_life: float | None


@dataclass(frozen=True)
class Spent:
    """Upper bounds of epsilon at ``delta``: over the site's life, and for each campaign."""

    life: float
    campaigns: dict[str, float]
    rounds_without_privacy: int
    delta: float

    @property
    def guaranteed_life(self) -> float | None:
        """``life``, or None where a round without privacy has ended the guarantee."""
        return self.life if self.rounds_without_privacy == 0 else None


def read_lines(connection: Connection) -> tuple[LedgerLine, ...]:
    """Return all lines, oldest first."""
    rows = connection.execute(select(LedgerRow.__table__).order_by(LedgerRow.sequence)).mappings()
    return tuple(LedgerLine(**row) for row in rows)


def spends(lines: Sequence[LedgerLine], campaign: str | None = None) -> list[Spend]:
    """Return what the reservations cost, of one campaign or of all."""
    return [
        line.spend for line in lines if line.spend is not None and campaign in (None, line.campaign)
    ]


def rounds_without_privacy(lines: Sequence[LedgerLine]) -> int:
    """Return how many reservations no epsilon can be given for."""
    return sum(line.kind == "reserve" and line.noise_multiplier == 0 for line in lines)


def check_chain(lines: Sequence[LedgerLine]) -> None:
    """Check every line against its own digest and its predecessor.

    Raises
    ------
    PrivacyRefused
        With code ``ledger-damaged``.
    """
    previous = GENESIS
    for number, line in enumerate(lines, start=1):
        whole = line.sequence == number and line.digest == line.expected_digest()
        if not whole or line.previous != previous:
            raise damaged(f"Line {number} of the privacy ledger was changed.")
        previous = line.digest


def refuse_replay(lines: Sequence[LedgerLine], request: RoundRequest) -> None:
    """Raise PlanRefused if the nonce or the campaign's round was reserved before."""
    for line in lines:
        same_round = (line.campaign, line.round) == (request.campaign, request.round)
        if line.nonce == request.nonce or same_round:
            raise replayed()


def refuse_other_kind(lines: Sequence[LedgerLine], campaign: str, *, private: bool) -> None:
    """Raise PrivacyRefused, code ``privacy-changed``, if earlier rounds were of the other kind.

    A campaign's later rounds hang on what the site kept of its earlier ones, so the epsilon of a
    round after one without noise would bound nothing.
    """
    for line in lines:
        if (line.kind, line.campaign) == ("reserve", campaign) and (
            (line.noise_multiplier > 0) != private
        ):
            raise PrivacyRefused(
                "The campaign asks for privacy in some rounds and for none in others.",
                meaning="The epsilon of its private rounds would not cover the others.",
                action="Begin another campaign.",
                code="privacy-changed",
            )


def refuse_other_delta(lines: Sequence[LedgerLine], delta: float) -> None:
    """Raise PrivacyRefused, code ``delta-changed``, if the ledger was begun with another delta."""
    if any(abs(line.delta - delta) > DELTA_TOLERANCE * delta for line in lines):
        raise PrivacyRefused(
            "The policy's delta is not the one that the ledger was begun with.",
            meaning="Epsilons at different deltas cannot be compared.",
            action="Put the earlier delta back into policy.toml.",
            code="delta-changed",
        )


def replayed() -> PlanRefused:
    """Return the error for a plan that comes a second time."""
    return PlanRefused(
        "This round was accepted before.",
        meaning="Training twice on one plan would spend privacy that nobody asked for.",
        code="plan-replayed",
    )


def damaged(what: str) -> PrivacyRefused:
    """Return the error for a ledger that cannot be trusted any more."""
    return PrivacyRefused(
        what,
        meaning="What was spent cannot be told any more, so nothing more may be spent.",
        action="Restore the newest backup of the database and of data/ledger-head.json.",
        code="ledger-damaged",
    )
