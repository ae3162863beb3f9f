"""What somebody may do at a site."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, TypeAlias

Access: TypeAlias = Literal["accounts", "open"]


class Role(StrEnum):
    """What somebody may do at a site; nobody has more than they were given.

    Attributes
    ----------
    clinician
        Has images read, stores and reviews cases.
    it
        Looks after the service: metrics, connection, certificates, what left the building.
    auditor
        Reads what was decided, answered and spent; changes nothing.
    """

    clinician = "clinician"
    it = "it"
    auditor = "auditor"


EVERY_ROLE = frozenset(Role)
