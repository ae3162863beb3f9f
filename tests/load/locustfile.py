"""What a hospital's users do, as Locust sees them; run by ``python -m tests.load``.

Most ask for predictions, with pictures of several shapes and kinds; some store a case and confirm
it; IT's programs look at health and metrics. In an overload (``WARDROUND_LOAD_OVERLOADED``) a 429
is an answer, too.
"""

from __future__ import annotations

import io
import os
import random

import numpy as np
from locust import HttpUser, constant_throughput, task
from PIL import Image

SHAPES = ((600, 450), (224, 224), (1024, 768), (450, 600))
LABELS = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
OVERLOADED = bool(os.environ.get("WARDROUND_LOAD_OVERLOADED"))
RATE = float(os.environ.get("WARDROUND_LOAD_RATE", "1"))


def pictures() -> list[tuple[str, bytes]]:
    """Return smooth pictures of several shapes, as JPEG and PNG."""
    dice = np.random.default_rng(os.getpid())
    found = []
    for number in range(24):
        coarse = dice.integers(0, 256, (12, 16, 3)).astype(np.uint8)
        shape = SHAPES[number % len(SHAPES)]
        picture = Image.fromarray(coarse).resize(shape, Image.Resampling.BICUBIC)
        target = io.BytesIO()
        kind = "PNG" if number % 6 == 5 else "JPEG"
        picture.save(target, kind)
        found.append((f"image.{kind.lower()}", target.getvalue()))
    return found


PICTURES = pictures()


class Hospital(HttpUser):  # type: ignore[misc]  # untyped
    """One user, who asks ``RATE`` times a second at the most."""

    wait_time = constant_throughput(RATE)

    @task(85)
    def predict(self) -> None:
        """Ask for a prediction."""
        with self.client.post(
            "/predict", files={"image": random.choice(PICTURES)}, catch_response=True, timeout=30
        ) as answer:
            if answer.status_code == 429 and OVERLOADED:
                answer.request_meta["name"] = "/predict (429)"
                answer.success()
            elif answer.status_code == 200 and not 0 <= answer.json()["positive_probability"] <= 1:
                answer.failure("no probability")

    @task(0 if OVERLOADED else 5)
    def case(self) -> None:
        """Store a case of a patient and confirm it."""
        picture = Image.fromarray(np.random.default_rng().integers(0, 256, (64, 64, 3), np.uint8))
        target = io.BytesIO()
        picture.save(target, "PNG")
        answer = self.client.post(
            "/cases",
            files={"image": ("case.png", target.getvalue())},
            data={"patient_id": f"load-{random.getrandbits(40)}"},
        )
        if answer.status_code == 201:
            case_id = answer.json()["case_id"]
            label = {"label": random.choice(LABELS)}
            self.client.post(f"/cases/{case_id}/confirm", json=label, name="/cases/[id]/confirm")

    @task(5)
    def model(self) -> None:
        """Look at the model."""
        self.client.get("/model")

    @task(5)
    def watch(self) -> None:
        """Look as monitoring does."""
        self.client.get(random.choice(("/health/ready", "/metrics", "/")))
