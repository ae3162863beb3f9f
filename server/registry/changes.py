"""Whether anything changed in the registry, told by a few small queries."""

from __future__ import annotations

import hashlib

from sqlalchemy import func, select

from server.registry.sessions import Sessions
from server.registry.tables import (
    AUDIT,
    CampaignRow,
    CandidateRow,
    ContributionRow,
    ForecastRow,
    ReleaseRow,
    RoundRow,
    SiteRow,
)


class Changes:
    """Fingerprints of the registry, for pages that refresh themselves."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def fingerprint(self) -> str:
        """Return 64 hex digits that differ when anything in the registry changed that a page shows.

        Accounts and sign-ins are told by the audit log's newest line.

        Raises
        ------
        StoreError
            If the database cannot be read.
        """
        queries = (
            select(CampaignRow.id, CampaignRow.state).order_by(CampaignRow.id),
            select(func.count(), func.max(RoundRow.started_at), func.max(RoundRow.finished_at)),
            select(func.count(), func.max(ContributionRow.recorded_at)),
            select(func.count(), func.max(ForecastRow.recorded_at)),
            select(CandidateRow.id, CandidateRow.state).order_by(CandidateRow.id),
            select(
                ReleaseRow.version, ReleaseRow.state, ReleaseRow.sites, ReleaseRow.changed_at
            ).order_by(ReleaseRow.version),
            select(SiteRow.name).order_by(SiteRow.name),
            select(func.max(AUDIT.c.sequence)),
        )
        with self._sessions.reading() as session:
            found = [[tuple(row) for row in session.execute(query)] for query in queries]
        return hashlib.sha256(repr(found).encode()).hexdigest()
