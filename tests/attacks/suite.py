"""All attacks, in the order of the table."""

from __future__ import annotations

from tests.attacks import (
    budget,
    code,
    files,
    inversion,
    kill_minus_nine,
    malformed,
    malformed_messages,
    membership,
    network,
    plans,
    releases,
    scraping,
    updates,
)
from tests.attacks.attack import Attack

ATTACKS: tuple[Attack, ...] = (
    *code.ATTACKS,
    *plans.ATTACKS,
    *budget.ATTACKS,
    *updates.ATTACKS,
    *network.ATTACKS,
    *releases.ATTACKS,
    *files.ATTACKS,
    *scraping.ATTACKS,
    *kill_minus_nine.ATTACKS,
    *malformed.ATTACKS,
    *malformed_messages.ATTACKS,
    *inversion.ATTACKS,
    *membership.ATTACKS,
)
