"""A patient objects: out of all later training and evaluation, and what it reached before.

In this order: the rows are blanked, and with them it is written down what is to follow; images are
deleted, what learnt from the cases is forgotten, the audit log gets its line
(`client.unfinished_withdrawals`); where the data had been used is told
(`client.withdrawal_report`). A step that fails holds up no other, and is told.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from pydantic import BaseModel, ConfigDict

from client.cases.store import CaseStore
from client.cases.withdrawals import Withdrawals, Withdrawn
from client.settings import SiteSettings
from client.site_records import SiteRecords
from client.unfinished_withdrawals import finish_withdrawals, tried
from client.withdrawal_report import TouchedCampaign, touched_campaigns
from common.audit_entries import PatientWithdrawn

__all__ = ["TouchedCampaign", "Withdrawal", "withdraw_case", "withdraw_patient"]


class Withdrawal(BaseModel):
    """What a withdrawal did, and where the patient's data had been used before it.

    ``unfinished`` says in words what could not be done; it is tried again by each round, by the
    service's next start, and by the next withdrawal, this one done again included.
    """

    model_config = ConfigDict(frozen=True)

    site: str
    cases: int
    side: str
    campaigns: tuple[TouchedCampaign, ...]
    unfinished: tuple[str, ...] = ()


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
        If the database failed.
    """
    _check_name(by)
    return _withdraw(settings, lambda withdrawals: withdrawals.patient(patient_id, by=by))


def withdraw_case(settings: SiteSettings, case_id: str, *, by: str | None = None) -> Withdrawal:
    """Withdraw one case, as a wrong upload; its patient stays. Raises as `withdraw_patient`."""
    _check_name(by)
    return _withdraw(settings, lambda withdrawals: withdrawals.case(case_id, by=by))


def _check_name(by: str | None) -> None:
    """Raise, before anything is done, for a name that the audit log could not keep afterwards."""
    PatientWithdrawn(cases=0, by=by)


def _withdraw(settings: SiteSettings, act: Callable[[Withdrawals], Withdrawn]) -> Withdrawal:
    with closing(CaseStore.open(settings)) as store:
        done = act(store.withdrawals)
        unfinished = tried("The images", store.withdrawals.remove_images)
    with SiteRecords.open(settings) as records:
        unfinished += finish_withdrawals(settings, records.ledger.engine)
        return Withdrawal(
            site=settings.name,
            cases=done.cases,
            side=done.history.split,
            campaigns=touched_campaigns(settings, records, done.history),
            unfinished=unfinished,
        )
