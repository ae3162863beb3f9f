"""The outbox: every byte that leaves this site in answer to a coordinator passes it.

It trusts nobody, the site's own round code included. It verifies the request by itself, holds the
reply against policy, memory and ledger (`client.outbox_checks`), writes what is about to leave
into the audit log, durably, and only then gives it out. So the log may name something that a
crash held back, but never the other way round.

A reply that breaks a rule is replaced by the refusal ``outbox-refused``. Where the audit log
cannot be written, nothing leaves: `Outbox.send` raises, and the caller answers with a constant.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import get_args

from flwr.app import RecordDict
from sqlalchemy import select
from sqlalchemy.orm import Session

from client.audit import note_policy, site_audit
from client.cases.tables import PlanRow
from client.outbox_checks import (
    Grounds,
    LeftUpdate,
    Memory,
    Shapes,
    check_refusal,
    check_reply,
    withheld,
)
from client.plan_keys import read_plan_keys
from client.policy import SitePolicy
from client.privacy.ledger import PrivacyLedger
from client.privacy.ledger_lines import LedgerLine
from client.settings import SiteSettings
from client.site_recipes import own_recipe
from common.audit import AuditLog
from common.audit_entries import Content, Left, PlanDeclined, SiteEntry
from common.errors import PlanRefused, PrivacyRefused, WardroundError
from common.local_layers import local_names
from common.model import build_model, set_trainable
from common.plan import RoundPlan, SignedPlan, verify_plan
from common.records import Refusal, SiteReply
from common.refusals import outward_code
from common.update import Tensors
from common.wire import SiteDescription, content_of, description_to_records, reply_to_records

logger = logging.getLogger(__name__)

_EXPIRY = ("plan-expired", "plan-not-yet-valid")


@dataclass(frozen=True)
class Opened:
    """A request as the outbox itself saw it come.

    ``signed_plan`` is None where no coordinator's key signed it; ``valid`` is False for one that
    came too late. ``lines`` are the ledger's at that moment, ``at`` UTC seconds since 1970,
    ``begun`` the same moment on a clock that nobody sets.
    """

    at: float
    signed_plan: RoundPlan | None = None
    valid: bool = False
    lines: tuple[LedgerLine, ...] = ()
    shapes: Shapes | None = None
    begun: float = field(default_factory=time.monotonic)

    @classmethod
    def now(cls) -> Opened:
        """Return a request of which nothing is known."""
        return cls(time.time())


class Outbox:
    """The one way out of a site.

    Parameters
    ----------
    settings : SiteSettings
        The site.
    ledger : PrivacyLedger
        Its ledger, and with it its database.
    clock : callable, optional
        Returns UTC seconds since 1970; for tests.
    """

    def __init__(
        self,
        settings: SiteSettings,
        ledger: PrivacyLedger,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._clock = clock
        self._log: AuditLog = site_audit(settings, ledger.engine)

    @classmethod
    @contextmanager
    def open(cls, settings: SiteSettings) -> Iterator[Outbox]:
        """Open a site's outbox, the database brought up to date, until the block ends.

        Raises
        ------
        ConfigurationError, StoreError
            If the database or the audit log cannot be used: then nothing may be answered.
        """
        with PrivacyLedger.open(settings) as ledger:
            outbox = cls(settings, ledger)
            note_policy(outbox._log, settings.policy)
            yield outbox

    def opened(self, signed: SignedPlan, base: Tensors) -> Opened:
        """Look at a request before anything is done about it.

        Parameters
        ----------
        signed : SignedPlan
            As it came.
        base : mapping of str to ndarray
            The model that came with it; its shapes are kept.

        Raises
        ------
        ConfigurationError, StoreError
            If a key or the ledger cannot be read.
        """
        now = self._clock()
        try:
            plan = verify_plan(signed, read_plan_keys(self._settings), now=now)
        except PlanRefused as error:
            if error.code not in _EXPIRY:
                return Opened(now)
            return Opened(now, RoundPlan.model_validate_json(signed.payload))
        shapes = {name: array.shape for name, array in base.items()}
        return Opened(now, plan, True, self._ledger.entries(), shapes)

    def send(self, reply: SiteReply, request: Opened) -> RecordDict:
        """Check a reply, write down that it leaves, and give out what leaves.

        Raises
        ------
        StoreError
            If the audit log cannot be written: nothing may leave.
        """
        try:
            records = self._checked(reply, request)
        except Exception as error:  # whatever is wrong with a reply, it does not leave
            known = isinstance(error, WardroundError)
            logger.error("outbox-refused reason=%s", error if known else type(error).__name__)
            reply = SiteReply(self._settings.name, refusal=Refusal(code="outbox-refused"))
            records = reply_to_records(reply)
        self._write_down(reply, records, request)
        return records

    def refuse(self, code: str, request: Opened) -> RecordDict:
        """Send a refusal; a code that is not in the closed table leaves as ``internal-error``."""
        refusal = Refusal(code=outward_code(code))
        return self.send(SiteReply(self._settings.name, refusal=refusal), request)

    def describe(self) -> RecordDict:
        """Say who the site is and what software it runs; raises as `send`."""
        description = SiteDescription(site=self._settings.name, software=version("wardround"))
        records = description_to_records(description)
        self._log.append(self._left(("description",), records))
        return records

    def _checked(self, reply: SiteReply, request: Opened) -> RecordDict:
        if reply.refusal is not None:
            # The code may be one that only this version's own mistake made.
            refusal = Refusal(code=outward_code(reply.refusal.code))
            reply = replace(reply, refusal=refusal)
            check_refusal(reply)
            if reply.site != self._settings.name:
                raise withheld("site-name")
            return reply_to_records(reply)
        plan = request.signed_plan
        if plan is None or not request.valid:
            raise withheld("plan-not-verified")
        policy = SitePolicy.read(self._settings.policy)
        try:
            own = own_recipe(self._settings, plan.recipe.name)
            policy.check(plan, own=own, now=request.at)
        except (PlanRefused, PrivacyRefused) as error:
            raise withheld(f"policy: {error.code}") from error
        self._ledger.verify_chain()
        lines = self._ledger.entries()
        grounds = Grounds(
            site=self._settings.name,
            plan=plan,
            policy=policy,
            memory=self._memory(plan.nonce),
            lines=lines,
            lines_before=request.lines,
            elapsed=time.monotonic() - request.begun,
            trainable=_trainable(plan, request.shapes or {}) if plan.purpose == "train" else {},
            left_before=self._left_before(plan) if plan.purpose == "train" else None,
            preflights=self._preflights(request.at) if plan.purpose == "preflight" else 0,
        )
        check_reply(reply, grounds)
        return reply_to_records(reply)

    def _left_before(self, plan: RoundPlan) -> LeftUpdate | None:
        # By the round, not by the nonce that reserved it: that request's answer may never have
        # left, and a later one's may.
        for line in self._log.lines(kinds=("left",)):
            entry = line.entry()
            if not isinstance(entry, Left) or not entry.update_digest or entry.nonce is None:
                continue
            if (entry.campaign, entry.round) == (plan.campaign, plan.round):
                return LeftUpdate(entry.nonce, entry.update_digest)
        return None

    def _memory(self, nonce: str) -> Memory | None:
        with Session(self._ledger.engine) as session:
            row = session.scalar(select(PlanRow).where(PlanRow.nonce == nonce))
            if row is None:
                return None
            return Memory(row.campaign, row.round, row.purpose, row.scores)

    def _preflights(self, at: float) -> int:
        since = datetime.fromtimestamp(at, UTC) - timedelta(hours=24)
        query = select(PlanRow.nonce).where(
            PlanRow.purpose == "preflight", PlanRow.accepted_at >= since
        )
        with Session(self._ledger.engine) as session:
            return len(session.scalars(query).all())

    def _write_down(self, reply: SiteReply, records: RecordDict, request: Opened) -> None:
        contents: tuple[Content, ...] = tuple(
            c for c in get_args(Content) if getattr(reply, c, None) is not None
        )
        if reply.forecast is not None and reply.forecast.status is not None:
            contents += ("status",)
        left = self._left(contents, records)
        plan, receipt = request.signed_plan, reply.receipt
        if plan is not None:
            named = {"campaign": plan.campaign, "round": plan.round, "nonce": plan.nonce}
            left = left.model_copy(update=named)
        if receipt is not None:
            spent = {
                "update_digest": receipt.update_digest,
                "epsilon_campaign": receipt.epsilon_campaign,
                "epsilon_life": receipt.epsilon_life,
            }
            left = left.model_copy(update=spent)
        entries: list[SiteEntry] = [left]
        if reply.refusal is not None:
            code = outward_code(reply.refusal.code)
            entries = [
                PlanDeclined(code=code, campaign=left.campaign, round=left.round, nonce=left.nonce),
                left.model_copy(update={"code": code}),
            ]
        self._log.append(*entries)

    def _left(self, contents: tuple[Content, ...], records: RecordDict) -> Left:
        content = content_of(records)
        return Left(
            contents=contents,
            destination=self._settings.superlink,
            bytes=content.bytes,
            sha256=content.sha256,
        )


def _trainable(plan: RoundPlan, base: Shapes) -> Shapes:
    """Return the shapes of what the plan lets move and leave, from a network of the outbox's own.

    Parameters only: a buffer, such as a batch normalisation's statistics, is never among them; nor
    is a layer that stays at the site.
    """
    model = build_model(plan.recipe, pretrained=False)
    names = set(set_trainable(model, plan.trainable))
    names -= local_names(model, plan.recipe.federation.local_layers)
    own = {name: tuple(p.shape) for name, p in model.named_parameters() if name in names}
    if any(base.get(name) != shape for name, shape in own.items()):
        raise withheld("base-shape")
    return own
