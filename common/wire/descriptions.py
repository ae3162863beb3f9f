"""Who a site is: the coordinator's question, and the answer."""

from __future__ import annotations

from flwr.app import RecordDict

from common.errors import PlanRefused, UpdateRefused
from common.wire.framing import pack, read_header
from common.wire.headers import Query, SiteDescription


def describe_request() -> RecordDict:
    """Ask a site who it is (message type ``query``)."""
    return pack(Query(), None)


def records_to_query(records: RecordDict) -> None:
    """Check that a query is ``describe``.

    Raises
    ------
    PlanRefused
        Code ``request-malformed`` or ``request-too-large``.
    """
    read_header(records, Query, PlanRefused, "request")


def description_to_records(description: SiteDescription) -> RecordDict:
    """Answer ``describe``."""
    return pack(description, None)


def records_to_description(records: RecordDict) -> SiteDescription:
    """Read the answer to ``describe``.

    Raises
    ------
    UpdateRefused
        Code ``reply-malformed`` or ``reply-too-large``.
    """
    return read_header(records, SiteDescription, UpdateRefused, "reply")
