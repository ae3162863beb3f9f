"""What a site answers to a plan, and what its ledger says of it."""

from __future__ import annotations

from client.privacy.ledger import PrivacyLedger
from client.round_handler import RoundHandler
from client.settings import SiteSettings
from common.plan import RoundPlan
from common.records import SiteReply
from common.update import Tensors
from tests.client.rounds import no_test, signed


def answer(site: SiteSettings, plan: RoundPlan, base: Tensors) -> SiteReply:
    return RoundHandler(site, self_test=no_test).handle(signed(plan), base)


def refused(site: SiteSettings, plan: RoundPlan, base: Tensors) -> str:
    reply = answer(site, plan, base)
    assert reply.refusal is not None
    assert (reply.receipt, reply.update, reply.evaluation) == (None, None, None)
    return reply.refusal.code


def ledger_lines(site: SiteSettings) -> list[tuple[str, int, str | None]]:
    with PrivacyLedger.open(site) as ledger:
        ledger.verify_chain()
        return [(line.kind, line.round, line.outcome) for line in ledger.entries()]
