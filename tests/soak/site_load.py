"""What people do at a site while its service is killed, and what they were told."""

from __future__ import annotations

import io
import random
import threading
import time
from dataclasses import dataclass, field

import httpx
import numpy as np
from PIL import Image

from tests.soak.site_process import RECIPE, SiteProcess

PAUSE_SECONDS = 0.01
SIDE = 40


def picture(seed: int) -> bytes:
    """Return a PNG; each seed is another one."""
    noise = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    target = io.BytesIO()
    Image.fromarray(noise).save(target, "PNG")
    return target.getvalue()


@dataclass
class Told:
    """What the service acknowledged; a fault is an answer that it should not have given."""

    stored: dict[str, int] = field(default_factory=dict)
    """Seed of the picture by case id, of answers 200 and 201 to an upload."""

    confirmed: dict[str, str] = field(default_factory=dict)
    """Label by case id, of answers that called the case confirmed."""

    predicted: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Version and digest by request id."""

    served: int = 0
    faults: list[str] = field(default_factory=list)
    cut: int = 0
    """Requests whose answer never came."""


class People:
    """Threads that upload, confirm, review and predict until `stop`."""

    def __init__(self, site: SiteProcess, told: Told, *, seed: int) -> None:
        self._site, self.told = site, told
        self._dice = random.Random(seed)
        self._next = 0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        works = (self._upload, self._upload, self._confirm, self._review, self._predict)
        self._waiting: list[str] = []
        self._threads = [threading.Thread(target=self._loop, args=(work,)) for work in works]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End; returns when all have."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(60)

    def _loop(self, work: object) -> None:
        with httpx.Client(base_url=self._site.url, timeout=20, trust_env=False) as client:
            while not self._stopping.is_set():
                try:
                    work(client)  # type: ignore[operator]
                except httpx.HTTPError:
                    self.told.cut += 1
                    time.sleep(0.1)  # the service is gone, or on its way back
                time.sleep(PAUSE_SECONDS)

    def _seed(self) -> int:
        with self._lock:
            self._next += 1
            return self._next

    def _upload(self, client: httpx.Client) -> None:
        seed = self._seed()
        fields = {"patient_id": f"p{seed // 2}"}
        label = RECIPE.classes[seed % 2] if seed % 3 == 0 else None
        if label is not None:
            fields["label"] = label
        answer = client.post("/cases", files={"image": ("x.png", picture(seed))}, data=fields)
        if answer.status_code not in (200, 201):
            self._strange("upload", answer)
            return
        body = answer.json()
        self.told.stored[body["case_id"]] = seed
        if body["status"] == "confirmed" and label is not None:
            self.told.confirmed[body["case_id"]] = label
        elif label is None:
            with self._lock:
                self._waiting.append(body["case_id"])

    def _take(self) -> str | None:
        with self._lock:
            return self._waiting.pop(0) if self._waiting else None

    def _confirm(self, client: httpx.Client) -> None:
        case = self._take()
        if case is None:
            return
        label = RECIPE.classes[0]
        answer = client.post(f"/cases/{case}/confirm", json={"label": label})
        if answer.status_code == 200:
            self._note(case, answer.json().get("status"), label)
        else:
            self._strange("confirm", answer)

    def _review(self, client: httpx.Client) -> None:
        case = self._take()
        if case is None:
            return
        label = RECIPE.classes[1]
        body = {"verdict": "correct", "label": label}
        answer = client.post(f"/review/{case}/opinion", json=body)
        if answer.status_code == 200:
            self._note(case, answer.json().get("status"), label)
        else:
            self._strange("review", answer)

    def _note(self, case: str, status: str | None, label: str) -> None:
        if status == "confirmed":
            self.told.confirmed[case] = label

    def _predict(self, client: httpx.Client) -> None:
        image = picture(self._dice.randrange(50))
        answer = client.post("/predict", files={"image": ("x.png", image)})
        if answer.status_code != 200:
            self._strange("predict", answer)
            return
        body = answer.json()
        said = (body["model_version"], body["model_digest"])
        self.told.predicted[body["request_id"]] = said

    def _strange(self, what: str, answer: httpx.Response) -> None:
        # 429 and 503 say "later": the service is busy, or on its way up or down. 409: another
        # thread was faster, or a flag holds the case.
        if answer.status_code not in (409, 429, 503):
            self.told.faults.append(f"{what}: {answer.status_code} {answer.text[:200]}")
