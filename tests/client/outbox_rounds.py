"""Honest rounds whose reply has not left the site yet, and what its audit log says of leaving."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from client.audit import open_site_audit
from client.outbox import Opened, Outbox
from client.round_handler import RoundHandler
from client.settings import SiteSettings
from common.audit_chain import verify
from common.audit_entries import Entry, Left
from common.plan import RoundPlan
from common.records import Receipt, Refusal, SiteReply
from common.update import ModelUpdate, Tensors
from common.wire import records_to_reply
from tests.client.rounds import no_test, signed

PATIENT = "Jane Doe, born 1 April 1961"


@dataclass(frozen=True)
class Round:
    """One honest round at one site, whose reply has not left yet."""

    settings: SiteSettings
    outbox: Outbox
    plan: RoundPlan
    request: Opened
    reply: SiteReply

    @property
    def update(self) -> ModelUpdate:
        assert self.reply.update is not None
        return self.reply.update

    @property
    def receipt(self) -> Receipt:
        assert self.reply.receipt is not None
        return self.reply.receipt

    def sent(self, reply: SiteReply) -> SiteReply:
        return records_to_reply(self.outbox.send(reply, self.request))

    def with_tensors(self, tensors: dict[str, np.ndarray]) -> SiteReply:  # type: ignore[type-arg]
        """The reply with other tensors, whose receipt agrees with them."""
        update = ModelUpdate(self.update.binding, tensors)
        receipt = self.receipt.model_copy(update={"update_digest": update.digest})
        return replace(self.reply, update=update, receipt=receipt)

    def with_receipt(self, **changes: object) -> SiteReply:
        return replace(self.reply, receipt=self.receipt.model_copy(update=changes))


def begin(settings: SiteSettings, outbox: Outbox, plan: RoundPlan, base: Tensors) -> Round:
    request = outbox.opened(signed(plan), base)
    reply = RoundHandler(settings, self_test=no_test).handle(signed(plan), base)
    return Round(settings, outbox, plan, request, reply)


def audited(settings: SiteSettings) -> list[Entry]:
    with open_site_audit(settings) as log:
        assert verify(log) == ()
        return [line.entry() for line in log.lines()]


def assert_held_back(round_: Round, reply: SiteReply) -> None:
    assert round_.sent(reply) == SiteReply("north", refusal=Refusal(code="outbox-refused"))
    newest = audited(round_.settings)[-1]
    assert isinstance(newest, Left)
    assert (newest.contents, newest.code) == (("refusal",), "outbox-refused")
