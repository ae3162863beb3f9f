"""The pointer to a task's newest release: itself a signed target, and what rings there are."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from pydantic import Field, ValidationError, model_validator

from common.plan import Identifier
from common.release.document import MAXIMUM_VERSION, Part, Version, canonical_json, malformed


class LimitedRelease(Part):
    """A release that not every site may take.

    ``sites`` are those that may, None all of them; where it is ``held``, only a site that has it
    already goes on with it.
    """

    version: Version
    sites: Annotated[tuple[Identifier, ...], Field(min_length=1, max_length=4096)] | None = None
    held: bool = False


class LatestRelease(Part):
    """Which of a task's releases are meant for which site, itself a signed target.

    Attributes
    ----------
    task : str
        The clinical task.
    version : int
        The newest release that is meant for every site; 0 while there is none.
    limited : tuple of LimitedRelease
        Newer ones, the oldest first: those in their first rings, and those that are held.
    """

    task: Identifier
    version: Annotated[int, Field(ge=0, le=MAXIMUM_VERSION)]
    limited: Annotated[tuple[LimitedRelease, ...], Field(max_length=1000)] = ()

    @model_validator(mode="after")
    def _ordered(self) -> LatestRelease:
        versions = (self.version, *(release.version for release in self.limited))
        if any(later <= earlier for earlier, later in pairwise(versions)):
            raise ValueError("limited: not newer than version, or out of order")
        return self

    @property
    def newest(self) -> int:
        """The task's newest release, whomever it is meant for; it never goes down."""
        return self.limited[-1].version if self.limited else self.version

    def offered(self, site: str, *, current: int = 0) -> int:
        """Return the newest release that is meant for a site.

        Parameters
        ----------
        site : str
            The site's name.
        current : int
            The version that the site has now, 0 for none.

        Returns
        -------
        int
            Its version, 0 if there is none. It may be older than ``current``, where that was
            held or limited meanwhile: versions never go down, so the site keeps what it has.
        """
        for release in reversed(self.limited):
            named = release.sites is None or site in release.sites
            if named and (not release.held or release.version == current):
                return release.version
        return self.version

    def to_json(self) -> bytes:
        """Return canonical JSON, as `ReleaseManifest.to_json`.

        Without limited releases it is what sites read before there were rings.
        """
        return canonical_json(self, leave_out=None if self.limited else {"limited"})


def parse_latest(data: bytes) -> LatestRelease:
    """Parse the pointer to the newest release.

    Raises
    ------
    ReleaseError
        With code ``manifest-malformed``.
    """
    try:
        return LatestRelease.model_validate_json(data)
    except ValidationError as error:
        raise malformed("The pointer to the newest release", error) from error
