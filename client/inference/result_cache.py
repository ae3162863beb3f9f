"""Answers kept for images that come again: no network call for the same pixels.

An answer is kept under the digest of the decoded pixels and of all that made it: weights, the
site's own head, the site's profile, the threshold, and who prepared the pixels. So another model,
head, profile or threshold never gets an old answer, and `ResultCache.clear` at a swap is for
memory alone. No pixel is kept, and nothing that says whose image it was.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

A = TypeVar("A")

DEFAULT_SIZE = 1024


@dataclass(frozen=True)
class ResultKey:
    """What an answer follows from: equal keys, equal answers.

    Attributes
    ----------
    pixels : str
        SHA-256 (hex) of the decoded pixels, as the case store has it.
    models : tuple of str
        Digests of the weights that answer, the release's first.
    head : str or None
        Digest of the site's own head.
    profile : str or None
        Digest of the site's profile, None without one.
    threshold : float
        Of the verdict.
    prepared : bool
        The caller had prepared them: the network saw these pixels, and not what `prepare` makes
        of them.
    """

    pixels: str
    models: tuple[str, ...]
    head: str | None
    profile: str | None
    threshold: float
    prepared: bool = False


class ResultCache(Generic[A]):
    """The answers asked for last; for any thread.

    Parameters
    ----------
    size : int
        Answers kept; the one not asked for longest goes first. 0 keeps none.

    Attributes
    ----------
    hits, misses : int
        Since the start.
    """

    def __init__(self, size: int = DEFAULT_SIZE) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._kept: OrderedDict[ResultKey, A] = OrderedDict()
        self.hits = self.misses = 0

    def __len__(self) -> int:
        """Return how many answers are kept."""
        return len(self._kept)

    def get(self, key: ResultKey) -> A | None:
        """Return the answer to equal pixels by the same model, None if there is none."""
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                self.misses += 1
                return None
            self._kept.move_to_end(key)
            self.hits += 1
            return found

    def keep(self, key: ResultKey, answer: A) -> None:
        """Keep an answer."""
        with self._lock:
            self._kept[key] = answer
            self._kept.move_to_end(key)
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)

    def clear(self) -> None:
        """Forget all answers: another model answers, or a patient withdrew."""
        with self._lock:
            self._kept.clear()
