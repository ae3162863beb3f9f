"""A patient objects: out of all later training and evaluation, and what it reached before.

Images are deleted and rows blanked (`client.cases.status`); prepared pixels go with them. What a
model has learnt cannot be taken out of it again: the rounds in which the patient could have been
sampled are listed with what they spent, which bounds what their updates tell about this patient.
Nobody can say in which of them the patient WAS sampled: the site does not write that down. Where
the site's clock was set back, more rounds are listed rather than fewer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel, ConfigDict

from client.audit import open_site_audit
from client.cases.case import PatientHistory
from client.cases.store import CaseStore
from client.kept_reply import forget_reply
from client.local_layers import LocalLayerStore
from client.personalisation.head import PersonalHeads
from client.plan_memory import TrainingRound
from client.privacy.accounting import epsilon
from client.privacy.ledger_lines import LedgerLine
from client.releases.cache import ReleaseCache
from client.releases.holdout_traces import forget_holdout_traces
from client.set_back_clock import clock_slack
from client.settings import SiteSettings
from client.site_records import SiteRecords
from client.training.pixel_cache import forget_prepared
from client.update_feedback import forget_feedback
from common.audit_entries import PatientWithdrawn


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True)


class TouchedCampaign(_Document):
    """A campaign whose training could have sampled the patient.

    ``epsilon`` bounds (RDP, at the ledger's delta) what these rounds' updates tell about one
    patient; None where a round ran without privacy. ``releases`` are those versions that this
    site still keeps and that the campaign led to, directly or as a base.
    """

    campaign: str
    task: str
    rounds: tuple[int, ...]
    first: datetime
    last: datetime
    epsilon: float | None
    releases: tuple[int, ...]


class Withdrawal(_Document):
    """What a withdrawal did, and where the patient's data had been used before it."""

    site: str
    cases: int
    side: str
    campaigns: tuple[TouchedCampaign, ...]


def withdraw_patient(
    settings: SiteSettings, patient_id: str, *, by: str | None = None
) -> Withdrawal:
    """Withdraw a patient; done again, it tells the same history and withdraws nothing more.

    Parameters
    ----------
    settings : SiteSettings
    patient_id : str
    by : str, optional
        The account, or who is at the console, for the audit log.

    Raises
    ------
    NotFound
        If the patient is unknown here.
    StoreError
        If the database or the disk failed.
    """

    def act(store: CaseStore) -> tuple[PatientHistory, int]:
        return store.patient_history(patient_id), store.withdraw_patient(patient_id)

    return _withdraw(settings, act, by)


def withdraw_case(settings: SiteSettings, case_id: str, *, by: str | None = None) -> Withdrawal:
    """Withdraw one case, as a wrong upload; its patient stays. Raises as `withdraw_patient`."""

    def act(store: CaseStore) -> tuple[PatientHistory, int]:
        live = store.get(case_id).status != "withdrawn"
        history = store.case_history(case_id)
        store.withdraw_case(case_id)
        return history, int(live)

    return _withdraw(settings, act, by)


def _withdraw(
    settings: SiteSettings, act: Callable[[CaseStore], tuple[PatientHistory, int]], by: str | None
) -> Withdrawal:
    with closing(CaseStore.open(settings)) as store:
        history, cases = act(store)
    forget_reply(settings)  # the patient may be in it
    forget_feedback(settings)  # and in what compression left over
    LocalLayerStore(settings).forget()  # in the layers that stay here
    PersonalHeads(settings).forget()  # and in the site's own head
    forget_holdout_traces(settings.data, settings.cache)  # and in what the holdout taught
    with open_site_audit(settings) as audit:
        audit.append(PatientWithdrawn(cases=cases, by=by))
    for task in history.confirmed:
        forget_prepared(settings.cache, task)
    return Withdrawal(
        site=settings.name,
        cases=cases,
        side=history.split,
        campaigns=_touched(settings, history) if history.split == "train" else (),
    )


def _touched(settings: SiteSettings, history: PatientHistory) -> tuple[TouchedCampaign, ...]:
    found: list[TouchedCampaign] = []
    with SiteRecords.open(settings) as records:
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
