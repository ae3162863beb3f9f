"""A small HTTP load generator in a process of its own, whose CPU time is told.

``python -m tests.bench.http_load URL FOLDER``: posts the folder's images as multipart ``image``
over kept-alive connections, one thread a client, and prints one JSON line.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import sys
import threading
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np


@dataclass(frozen=True)
class Load:
    """What was measured: requests a second, latency in seconds, and the generator's own CPU."""

    requests: int
    seconds: float
    failures: int
    p50: float
    p95: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Answered requests a second."""
        return (self.requests - self.failures) / self.seconds


def multipart(image: bytes) -> tuple[bytes, str]:
    """Return a body with one file part named ``image``, and its content type."""
    boundary = uuid.uuid4().hex
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="x.jpg"\r\n'
    body = head.encode() + b"Content-Type: image/jpeg\r\n\r\n" + image
    return body + f"\r\n--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def run(url: str, images: list[bytes], *, clients: int, seconds: float, warm: float) -> Load:
    """Ask from ``clients`` threads for ``seconds``, after ``warm`` seconds that do not count."""
    parts = urlsplit(url)
    bodies = [multipart(image) for image in images]
    begin = time.monotonic() + warm
    end = begin + seconds
    found: list[tuple[float, bool]] = []
    numbers = itertools.count()

    def client() -> None:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        while (sent := time.monotonic()) < end:
            body, kind = bodies[next(numbers) % len(bodies)]
            try:
                connection.request("POST", parts.path, body, {"Content-Type": kind})
                answer = connection.getresponse()
                answer.read()
                well = answer.status == 200
            except OSError:
                connection.close()
                well = False
            if begin <= sent and time.monotonic() <= end:
                found.append((time.monotonic() - sent, well))

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    time.sleep(max(0.0, begin - time.monotonic()))
    cpu = time.process_time()
    for thread in threads:
        thread.join()
    cpu = time.process_time() - cpu
    times = np.array([t for t, _ in found] or [float("nan")])
    return Load(
        requests=len(found),
        seconds=seconds,
        failures=sum(not well for _, well in found),
        p50=float(np.quantile(times, 0.5)),
        p95=float(np.quantile(times, 0.95)),
        cpu_seconds=cpu,
    )


def main() -> None:
    """Print the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--warm", type=float, default=3.0)
    given = parser.parse_args()
    images = [path.read_bytes() for path in sorted(given.folder.iterdir())]
    found = run(given.url, images, clients=given.clients, seconds=given.seconds, warm=given.warm)
    sys.stdout.write(json.dumps(asdict(found)) + "\n")


if __name__ == "__main__":
    main()
