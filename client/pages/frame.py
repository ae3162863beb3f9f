"""What every page has around it: who looks, which pages they may open, which model answers."""

from __future__ import annotations

from dataclasses import dataclass

from client.access.caller import Caller
from client.access.roles import Role


@dataclass(frozen=True)
class PageLink:
    """A page in the menu, and who may open it."""

    address: str
    label: str
    roles: frozenset[Role]


PAGES = (
    PageLink("/", "Reading", frozenset({Role.clinician})),
    PageLink("/review-queue", "Review", frozenset({Role.clinician})),
    PageLink("/outcomes", "Outcomes", frozenset({Role.clinician, Role.auditor})),
    PageLink("/it", "Hospital IT", frozenset({Role.it, Role.auditor})),
)
"""In the menu's order."""


def links_for(caller: Caller) -> tuple[PageLink, ...]:
    """Return the pages that a caller may open."""
    return tuple(page for page in PAGES if caller.may(*page.roles))


def may_open(caller: Caller, address: str) -> bool:
    """Tell whether a caller may open a page."""
    return any(page.address == address for page in links_for(caller))
