"""Naming the sites that could not take part for want of one line in their policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.console import progress_console

if TYPE_CHECKING:
    from server.settings import CoordinatorSettings

CODE = "patients-undeclared"


def warn_of_undeclared(settings: CoordinatorSettings, campaign: str) -> tuple[str, ...]:
    """Say on stderr which sites answered the preflight with `CODE`, and what to do; return them.

    A site whose folder is on this machine, as in a federation of `wardround local up`, is named
    with the file to change; another one's is its hospital's to change.
    """
    from deploy.campaigns import opened

    with opened(settings) as registry:
        names = tuple(told.site for told in registry.forecasts(campaign) if told.code == CODE)
    for name in names:
        policy = settings.folder.parent / "sites" / name / "policy.toml"
        where = f"{policy}" if policy.is_file() else "its policy.toml, which its hospital keeps"
        progress_console.print(
            f"Site {name} has not declared a number of patients and does not take part: "
            f"set declared_patients in {where}.",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    return names
