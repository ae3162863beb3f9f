"""Lists of campaigns and releases as tables of which nothing is cut off at 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Column

from deploy.tables import Table

if TYPE_CHECKING:
    from server.api.campaigns import CampaignSummary
    from server.api.releases import ReleaseDocument


def campaigns_table(found: Sequence[CampaignSummary]) -> Table:
    """Draw campaigns: what each is stands below its id, for side by side it would not fit."""
    table = Table(_stacked("campaign"), *_whole("state", "rounds", "epsilon", "from"))
    for c in found:
        base = "–" if c.base_release is None else f"v{c.base_release}"
        what = c.task if c.kind == "training" else f"{c.kind}, {c.task}"
        table.add_row(
            f"{c.id}\n{escape(what)}, {escape(c.architecture)}",
            *(c.state, str(c.rounds), figure(c.epsilon), base),
        )
    return table


def releases_table(found: Sequence[ReleaseDocument]) -> Table:
    """Draw releases, as `campaigns_table` does campaigns."""
    table = Table(*_whole("release"), _stacked("campaign"), *_whole("sites", "AUROC", "majority"))
    for r in found:
        table.add_row(
            f"v{r.version}",
            f"{r.campaign}\n{escape(r.task)}, {escape(r.architecture)}",
            *(str(len(r.sites)), figure(r.macro_auroc), figure(r.majority_baseline)),
        )
    return table


def figure(value: float | None) -> str:
    """Return a figure with three digits, or a dash."""
    return "–" if value is None else f"{value:.3f}"


def _stacked(name: str) -> Column:
    return Column(f"{name}\ntask, network", overflow="fold")


def _whole(*names: str) -> list[Column]:
    return [Column(name, no_wrap=True) for name in names]
