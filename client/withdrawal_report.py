"""Where a withdrawn patient's data had been used: the rounds, what they spent, and the releases.

What a model has learnt cannot be taken out of it again: the rounds in which the patient could have
been sampled are listed with what they spent, which bounds what their updates tell about this
patient. Nobody can say in which of them the patient WAS sampled: the site does not write that
down. Where the site's clock was set back, more rounds are listed rather than fewer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel, ConfigDict

from client.cases.case import PatientHistory
from client.plan_memory import TrainingRound
from client.privacy.accounting import epsilon
from client.privacy.ledger_lines import LedgerLine
from client.releases.cache import ReleaseCache
from client.set_back_clock import clock_slack
from client.settings import SiteSettings
from client.site_records import SiteRecords


class TouchedCampaign(BaseModel):
    """A campaign whose training could have sampled the patient.

    ``epsilon`` bounds (RDP, at the ledger's delta) what these rounds' updates tell about one
    patient; None where a round ran without privacy. ``releases`` are those versions that this
    site still keeps and that the campaign led to, directly or as a base.
    """

    model_config = ConfigDict(frozen=True)

    campaign: str
    task: str
    rounds: tuple[int, ...]
    first: datetime
    last: datetime
    epsilon: float | None
    releases: tuple[int, ...]


def touched_campaigns(
    settings: SiteSettings, records: SiteRecords, history: PatientHistory
) -> tuple[TouchedCampaign, ...]:
    """Return the campaigns whose training could have sampled somebody with this history.

    To be asked after the withdrawal: a round that reserves later finds the case gone.
    """
    if history.split != "train":
        return ()
    found: list[TouchedCampaign] = []
    entries = tuple(records.ledger.entries())
    lines = {(line.campaign, line.round): line for line in entries if line.kind == "reserve"}
    slack = clock_slack(settings, (line.written_at for line in entries))
    for task, confirmed in history.confirmed.items():
        rounds = [
            _Trained(accepted, line)
            for accepted in records.plans.training_rounds(task)
            # A plan that failed before its reservation trained nothing.
            if (line := lines.get((accepted.campaign, accepted.round))) is not None
        ]
        mine = [r for r in rounds if r.could_sample(confirmed, history.withdrawn, slack)]
        for campaign in dict.fromkeys(r.line.campaign for r in mine):
            of_it = [r for r in mine if r.line.campaign == campaign]
            found.append(_campaign(settings, task, of_it))
    return tuple(found)


@dataclass(frozen=True)
class _Trained:
    accepted: TrainingRound
    line: LedgerLine

    def could_sample(
        self, confirmed: datetime, withdrawn: datetime | None, slack: timedelta
    ) -> bool:
        """Tell whether a case may have been there when the round read its cases.

        It reads them after its plan was accepted, and before it reserves. Where the clock was set
        back, a round counts that is out by no more than the slack, and every round where a time
        is still to come: one too many, never one too few.
        """
        now = datetime.now(UTC)
        gone = withdrawn is not None and withdrawn < min(now, self.accepted.accepted_at - slack)
        return not gone and (self.line.written_at + slack >= confirmed or confirmed > now)


def _campaign(settings: SiteSettings, task: str, rounds: Sequence[_Trained]) -> TouchedCampaign:
    lines = [r.line for r in rounds]
    spends = [line.spend for line in lines if line.spend is not None]
    private = len(spends) == len(lines)
    return TouchedCampaign(
        campaign=lines[0].campaign,
        task=task,
        rounds=tuple(sorted({line.round for line in lines})),
        first=lines[0].written_at,
        last=lines[-1].written_at,
        epsilon=epsilon(spends, lines[0].delta) if private else None,
        releases=kept_releases(settings, task, lines[0].campaign),
    )


def kept_releases(settings: SiteSettings, task: str, campaign: str) -> tuple[int, ...]:
    """Return the versions kept here that a campaign led to, directly or as a base."""
    if task != settings.task or not settings.releases.is_dir():
        return ()
    cache = ReleaseCache(settings)
    found = (cache.previous(), cache.current(), cache.answering())
    kept = {r.version: r.manifest for r in found if r is not None}
    versions: list[int] = []
    for manifest in sorted(kept.values(), key=lambda m: m.version):
        lineage = manifest.lineage
        if lineage.campaign == campaign or lineage.base_release in versions:
            versions.append(manifest.version)
    return tuple(versions)
