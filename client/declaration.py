"""The number of training patients that a site declares: public, round, and chosen by a person.

Updates are divided by it and weighed by it, so it must not be counted from the cases: it would
then tell, now and then, whether one patient is among them.
"""

from __future__ import annotations

import re
from pathlib import Path

from client.policy import SitePolicy
from common.folders import write_public

_LINE = re.compile(r"(?m)^#?[ \t]*declared_patients[ \t]*=.*$")


def declare_patients(policy: Path, patients: int) -> None:
    """Set ``declared_patients`` in a policy file; all else in it stays as it is.

    Parameters
    ----------
    policy : Path
        ``policy.toml`` of the site.
    patients : int
        At least 1.

    Raises
    ------
    PrivacyRefused
        If the file is absent or would break a rule; it is left as it was.
    """
    SitePolicy.read(policy)
    text = policy.read_text("utf-8")
    line = f"declared_patients = {patients}"
    changed = _LINE.sub(line, text, count=1) if _LINE.search(text) else f"{line}\n{text}"
    SitePolicy.parse(changed, origin=str(policy))
    write_public(policy, changed.encode())
