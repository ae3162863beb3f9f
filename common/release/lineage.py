"""Where a released model comes from."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from common.plan import Identifier
from common.records import Receipt
from common.release.document import Part, Version


class SiteContribution(Part):
    """One site's part in a release.

    ``rounds`` is the number of rounds whose update was taken in. ``receipt`` is the site's last
    one, whose ``epsilon_campaign`` and ``epsilon_life`` already add up all earlier rounds; the
    coordinator's registry keeps every receipt. It is None for a model that was not trained
    federated.
    """

    site: Identifier
    rounds: Annotated[int, Field(ge=0)]
    receipt: Receipt | None = None


class Lineage(Part):
    """Where a model comes from.

    ``candidate`` is the registry's identifier; publishing the same candidate twice is one
    release. ``base_release`` is the release that the campaign started from, None from scratch.
    A clinical rollback ``replaces`` one release by the weights of an older one, which it
    ``restores``; both are None otherwise.
    """

    campaign: Identifier
    candidate: Identifier
    rounds: Annotated[int, Field(ge=0)]
    base_release: Version | None = None
    restores: Version | None = None
    replaces: Version | None = None
    sites: tuple[SiteContribution, ...] = ()
