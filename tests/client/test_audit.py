"""What the site writes down besides rounds: policies and withdrawals, without a name."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from client.audit import note_policy, open_site_audit
from client.settings import SiteSettings
from client.withdrawal import withdraw_patient
from common.audit_chain import verify
from common.audit_entries import Entry, PatientWithdrawn, PolicyChanged
from common.errors import NotFound
from tests.client.rounds import make_site


@pytest.fixture
def site(tmp_path: Path) -> SiteSettings:
    return make_site(tmp_path / "site", patients=3, holdout=1)


def entries(site: SiteSettings) -> list[Entry]:
    with open_site_audit(site) as log:
        assert verify(log) == ()
        return [line.entry() for line in log.lines()]


def test_a_policy_is_written_down_when_it_changes(site: SiteSettings) -> None:
    first = site.policy.read_bytes()
    second = first + b"# another line\n"
    with open_site_audit(site) as log:
        for policy in (first, first, second, second, first):
            site.policy.write_bytes(policy)
            note_policy(log, site.policy)
        site.policy.unlink()
        note_policy(log, site.policy)
    digests = [hashlib.sha256(p).hexdigest() for p in (first, second, first)]
    assert entries(site) == [PolicyChanged(digest=digest) for digest in digests]


def test_a_withdrawal_is_a_number(site: SiteSettings) -> None:
    withdraw_patient(site, "train-1")
    with pytest.raises(NotFound):
        withdraw_patient(site, "nobody")
    assert entries(site) == [PatientWithdrawn(cases=1)]
    with open_site_audit(site) as log:
        assert "train-1" not in "".join(line.body for line in log.lines())
