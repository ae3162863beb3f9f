"""Somebody at a site's door, for tests of what each role is shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import FastAPI, Request

from client.access.caller import Caller, Role, set_door


class FakeDoor:
    """Lets in one caller, whoever asks."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def caller(self, _request: Request) -> Caller:
        return self._caller


@contextmanager
def as_caller(app: FastAPI, *roles: Role, name: str = "anna") -> Iterator[None]:
    """Have every request come from a caller with these roles until the block ends."""
    before = app.state.door
    set_door(app, FakeDoor(Caller(name, frozenset(roles))))
    try:
        yield
    finally:
        set_door(app, before)
