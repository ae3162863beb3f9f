"""Requests that run at every site while a new model is swapped in, and what became of them."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType

import httpx

REQUEST_SECONDS = 30.0
PAUSE_SECONDS = 0.05


@dataclass
class Tally:
    """Requests answered and failed at one site, and the model versions that answered."""

    answered: int = 0
    failed: int = 0
    versions: set[int] = field(default_factory=set)


class Traffic:
    """Posts images to every site's ``/predict``, one request at a time a site, until it is left.

    Parameters
    ----------
    urls : mapping of str to str
        Site name to the base URL of its inference service.
    images : sequence of bytes
        Encoded images, sent in turn.
    """

    def __init__(self, urls: Mapping[str, str], images: Sequence[bytes]) -> None:
        self.tallies = {name: Tally() for name in urls}
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(name, url, images), name=f"traffic-{name}")
            for name, url in urls.items()
        ]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, name: str, url: str, images: Sequence[bytes]) -> None:
        tally = self.tallies[name]
        with httpx.Client(base_url=url, timeout=REQUEST_SECONDS, trust_env=False) as client:
            for image in itertools.cycle(images):
                if self._stop.is_set():
                    return
                try:
                    answer = client.post("/predict", files={"image": ("image", image)})
                    answer.raise_for_status()
                    tally.versions.add(int(answer.json()["model_version"]))
                    tally.answered += 1
                except (httpx.HTTPError, KeyError, ValueError):
                    tally.failed += 1
                time.sleep(PAUSE_SECONDS)
