"""One answer under an ``Idempotency-Key``: being made, kept, or given again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel

from common.errors import CaseRefused

Document = TypeVar("Document", bound=BaseModel)


@dataclass(frozen=True)
class KeptAnswer:
    """An answer as it was given."""

    status: int
    media_type: str
    body: bytes


class Replayed(Exception):
    """Not an error: the request was answered before, and this is the answer."""

    def __init__(self, answer: KeptAnswer) -> None:
        super().__init__("answered before")
        self.answer = answer


class InProgress(CaseRefused):
    """The same key's first request is not answered yet."""

    default_code = "idempotency-in-progress"


class Answering:
    """The answer that is being made; `keep` says what it is."""

    def __init__(self) -> None:
        self.kept: KeptAnswer | None = None

    def keep(self, document: Document, *, status: int) -> Document:
        """Keep a document as the answer, and return it."""
        body = document.model_dump_json().encode()
        self.kept = KeptAnswer(status, "application/json", body)
        return document


class Doing:
    """The names of the keys whose requests this process is doing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names: set[str] = set()

    @contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Tell whether the name is the caller's now, for as long as the block."""
        with self._lock:
            mine = name not in self._names
            self._names.add(name)
        try:
            yield mine
        finally:
            if mine:
                with self._lock:
                    self._names.discard(name)
