"""Which sites were shut out for good, read from the coordinator's own book (of `deploy.pki`)."""

from __future__ import annotations

import json
from pathlib import Path


def revoked_sites(pki: Path) -> frozenset[str]:
    """Return the names of the sites that were revoked; none where the book cannot be read.

    Gateway and SuperLink keep them out, whatever is read here: this tells who need not be waited
    for, and whose answers come too late.
    """
    try:
        return frozenset(json.loads((pki / "revoked.json").read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return frozenset()
