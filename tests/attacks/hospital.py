"""A hospital to attack: requests come in as a coordinator's do, and answers leave by the outbox."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import pytest
from flwr.app import RecordDict

from client.outbox import Opened, Outbox
from client.policy import SitePolicy
from client.privacy.accounting import epsilon
from client.privacy.ledger import PrivacyLedger
from client.privacy.ledger_lines import LedgerLine
from client.round_handler import RoundHandler
from client.settings import SiteSettings
from common.plan import RoundPlan, SignedPlan
from common.records import SiteReply
from common.signing import SigningKey
from common.update import Tensors
from common.wire import records_to_reply, reply_to_records
from tests.client.rounds import KEY, base_tensors, make_site, signed

BASE = base_tensors()


@dataclass(frozen=True)
class Hospital:
    """A site of eight phantom patients, and what a coordinator gets to see of it."""

    settings: SiteSettings

    @classmethod
    def build(cls, folder: Path, **policy: object) -> Hospital:
        patients = {"patients": 8, "holdout": 8} | policy
        return cls(make_site(folder / "site", **patients))  # type: ignore[arg-type]

    def ask(self, plan: RoundPlan | SignedPlan, base: Tensors = BASE) -> SiteReply:
        """Send a plan, signed by the coordinator unless it is already; return what left."""
        sent = signed(plan) if isinstance(plan, RoundPlan) else plan
        with Outbox.open(self.settings) as outbox:
            request = outbox.opened(sent, base)
            reply = RoundHandler(self.settings, self_test=lambda *_, **__: None).handle(sent, base)
            return records_to_reply(outbox.send(reply, request))

    def lines(self) -> tuple[LedgerLine, ...]:
        with PrivacyLedger.open(self.settings) as ledger:
            return ledger.entries()

    def trained(self) -> int:
        """Count the rounds that were trained, as the ledger has them."""
        return sum(line.outcome == "trained" for line in self.lines())

    def epsilon(self) -> float:
        """Recompute what was spent in the site's life from the bare lines."""
        spent = [line.spend for line in self.lines() if line.spend is not None]
        return epsilon(spent, SitePolicy.read(self.settings.policy).delta)

    def trust(self, key: SigningKey) -> None:
        """Let the hospital accept another coordinator."""
        number = next(n for n in itertools.count(1) if not (self._keys / f"{n}.pem").exists())
        (self._keys / f"{number}.pem").write_bytes(key.verify_key.pem())

    @property
    def _keys(self) -> Path:
        return self.settings.trust / "plan-keys"


def answer(reply: SiteReply) -> str:
    """Say in a word what came back."""
    if reply.refusal is not None:
        return f"refused: {reply.refusal.code}"
    parts = ("update", "evaluation", "forecast", "receipt")
    return "got " + ", ".join(part for part in parts if getattr(reply, part) is not None)


def without_outbox(patch: pytest.MonkeyPatch) -> None:
    """Switch off the outbox's checks, where they are the second line behind a defence."""

    def unchecked(_outbox: Outbox, reply: SiteReply, _request: Opened) -> RecordDict:
        return reply_to_records(reply)

    patch.setattr(Outbox, "_checked", unchecked)


__all__ = ["BASE", "KEY", "Hospital", "answer", "without_outbox"]
