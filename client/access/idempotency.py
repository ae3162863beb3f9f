"""``Idempotency-Key``: a request that is sent again is answered as the first time, not done again.

The rules (draft-ietf-httpapi-idempotency-key-header-07, 2):

1. A key is the caller's own, for one route: another caller's, or another route's, is another key.
2. The same key with another request is 422, ``idempotency-key-reused``.
3. The same key while the first request is being done is 409, ``idempotency-in-progress``.
4. What was answered well is kept for 24 hours, and no longer than the cases that it names are
   live. An error is not: the request may be sent again.
5. A key whose request was cut off by the death of the service, or whose end could not be written
   down, is free again: what is asked for under a key can be done twice without harm (a case is
   its pixels).

A key, and a request, may hold anything, a patient's number too: of both an HMAC is kept.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Annotated

import anyio.to_thread
from fastapi import Header
from sqlalchemy import Engine, delete
from sqlalchemy.orm import Session

from client.access.answering import Answering, Doing, InProgress, KeptAnswer, Replayed
from client.access.tables import KeptAnswerRow
from client.access.withdrawn_answers import names_withdrawn
from client.cases.transactions import Transactions
from common.errors import InputRefused, StoreError
from common.moments import utc_now

__all__ = ["Idempotency", "IdempotencyKey", "InProgress", "Replayed", "form_parts"]

log = logging.getLogger(__name__)

KEPT_FOR = timedelta(hours=24)
WRITE_LOCK = 0x4B455054

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="Any text that is new for each new request; sent again, it is not done again.",
    ),
]


class Idempotency:
    """Answers kept in one site's database.

    Parameters
    ----------
    engine : Engine
        Migrated.
    secret : bytes
        What keys and requests are hashed with.
    clock : callable
        Returns the moment, aware.
    """

    def __init__(
        self, engine: Engine, secret: bytes, *, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._transactions = Transactions(engine, WRITE_LOCK)
        self._secret = secret
        self._clock = clock
        self._process = uuid.uuid4().hex
        self._doing = Doing()

    @asynccontextmanager
    async def once(
        self,
        *,
        caller: str,
        route: str,
        key: str | None,
        parts: Sequence[bytes],
        harmless: bool = False,
    ) -> AsyncIterator[Answering]:
        """Do what the block does unless it was done before; without a key, always.

        Parameters
        ----------
        caller, route : str
            Whose key it is, and for what.
        key : str or None
            From the header.
        parts : sequence of bytes
            What makes the request this one: two requests are the same if these are.
        harmless : bool
            What the block does keeps nothing, and may be done twice: where the database takes no
            key (a full disk), it is done all the same, and its answer is not kept.

        Raises
        ------
        Replayed
            If it was answered before; the edge gives the kept answer.
        InputRefused, InProgress
            With code ``idempotency-key-reused``, ``idempotency-in-progress``.
        StoreError
            If the key cannot be written down, unless ``harmless``.
        """
        answering = Answering()
        if key is None:
            yield answering
            return
        name = self._hashed(b"key", [caller.encode(), route.encode(), _bytes(key)])
        fingerprint = self._hashed(b"request", parts)
        with self._doing.claim(name) as mine:
            known, begun = None, True
            try:
                known = await anyio.to_thread.run_sync(self._begin, name, fingerprint, mine)
            except StoreError as error:
                if not harmless:
                    raise
                log.error("event=answer-not-kept code=%s", error.code)
                begun = False
            if known is not None:
                raise Replayed(known)
            try:
                yield answering
            finally:
                if begun:
                    with anyio.CancelScope(shield=True):
                        await anyio.to_thread.run_sync(self._end, name, answering.kept)

    def forget_old(self) -> None:
        """Remove what is kept for longer than `KEPT_FOR`, whether anybody asks or not."""
        with self._transactions.writing() as session:
            self._forget_old(session)

    def _forget_old(self, session: Session) -> None:
        old = self._clock() - KEPT_FOR
        session.execute(delete(KeptAnswerRow).where(KeptAnswerRow.begun_at <= old))

    def _begin(self, name: str, fingerprint: str, mine: bool) -> KeptAnswer | None:
        now = self._clock()
        with self._transactions.writing() as session:
            self._forget_old(session)
            row = session.get(KeptAnswerRow, name)
            if row is not None and row.fingerprint != fingerprint:
                raise InputRefused(
                    "This Idempotency-Key was sent with another request.",
                    action="Use a new key for each new request.",
                    code="idempotency-key-reused",
                )
            if row is not None and row.status is not None:
                return KeptAnswer(row.status, row.media_type or "", row.body or b"")
            if not mine:
                raise InProgress(
                    "The request with this Idempotency-Key is being done.",
                    action="Wait for its answer, or send it again in a moment.",
                )
            if row is None:
                row = KeptAnswerRow(key=name, fingerprint=fingerprint)
                session.add(row)
            row.process, row.begun_at = self._process, now
        return None

    def _end(self, name: str, kept: KeptAnswer | None) -> None:
        """Keep the answer, or free the key; what was done stays done where that fails."""
        try:
            self._written_down(name, kept)
        except StoreError as error:
            log.error("event=answer-not-kept code=%s", error.code)

    def _written_down(self, name: str, kept: KeptAnswer | None) -> None:
        with self._transactions.writing() as session:
            row = session.get(KeptAnswerRow, name)
            if row is None:
                return
            if kept is None or names_withdrawn(session, kept.body):
                session.delete(row)
            else:
                row.status, row.media_type, row.body = kept.status, kept.media_type, kept.body

    def _hashed(self, domain: bytes, parts: Sequence[bytes]) -> str:
        mac = hmac.new(self._secret, domain, hashlib.sha256)
        for part in parts:
            mac.update(len(part).to_bytes(8, "big") + part)
        return mac.hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def form_parts(image: bytes, fields: Mapping[str, str]) -> list[bytes]:
    """Return what makes an upload this one: its bytes and its fields, in whatever order."""
    texts = [_bytes(text) for name in sorted(fields) for text in (name, fields[name])]
    return [hashlib.sha256(image).digest(), *texts]
