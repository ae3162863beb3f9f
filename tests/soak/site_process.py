"""A site's inference service as a real process, with a coordinator that publishes releases."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import httpx
import numpy as np
import psutil

from client.settings import SiteSettings
from client.site_folder import create_site_folder
from common.model import build_model, classifier_names, state_tensors
from common.recipe import load_recipe
from common.release import Lineage
from common.update import Tensors, tensors_digest
from deploy.ports import free_port
from server.coordinator_folder import plan_public_key
from tests.releases import Coordinator, draft

RECIPE = load_recipe("mammography").with_changes(model="test_resnet", image_size=32)
READY_SECONDS = 120.0
GLANCE_SECONDS = 0.02


def weights(seed: int) -> Tensors:
    """Return weights that favour a class, so that releases can be told apart."""
    network = build_model(RECIPE, seed=seed)
    tensors = state_tensors(network)
    bias = classifier_names(network)[-1]
    tensors[bias] = np.array([seed % 7, 0.0], np.float32)
    return tensors


def publish(coordinator: Coordinator, seed: int, *, restores: int | None = None) -> int:
    """Publish the network of a seed; return the version."""
    tensors = weights(seed)
    made = draft(seed, candidate=f"candidate-{seed}-{time.monotonic_ns()}")
    lineage: Lineage = made.lineage
    if restores is not None:
        lineage = lineage.model_copy(update={"restores": restores})
    changes: dict[str, object] = {
        "recipe": RECIPE,
        "model_digest": tensors_digest(tensors),
        "lineage": lineage,
    }
    return coordinator.publisher.publish(made.model_copy(update=changes), tensors)


def site_folder(
    folder: Path, coordinator: Coordinator, coordinator_port: int, **settings: object
) -> SiteSettings:
    """Make a site's folder; whoever reaches its port, on loopback, may use it."""
    fields: dict[str, object] = {
        "coordinator_url": f"https://127.0.0.1:{coordinator_port}",
        "port": free_port(),
        "threads": 1,
        "device": "cpu",
        "access": "open",
        "release_poll_seconds": 1.0,
        "release_watch_seconds": 0.2,
        "inference": {"runtime": "torch"},
        **settings,
    }
    return create_site_folder(
        folder,
        name="north",
        task=RECIPE.name,
        plan_keys=[plan_public_key(coordinator.settings)],
        policy=str(fields.pop("policy", "")),
        settings=fields,
        root_json=coordinator.publisher.initialise(),
        ca_certificate=coordinator.authority.certificate,
    )


@dataclass
class SiteProcess:
    """``python -m client.standby`` for one site; killed and started again as a test likes."""

    settings: SiteSettings
    environment: Mapping[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    log: IO[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.settings.port}"

    def start(self) -> None:
        """Start it, in a session of its own."""
        own = {k: v for k, v in os.environ.items() if not k.startswith("WARDROUND_SITE_")}
        self.log = (self.settings.folder / "logs" / "service.log").open("ab")
        folder = str(self.settings.folder)
        command = [sys.executable, "-W", "ignore", "-m", "client.standby", "--folder", folder]
        self.process = subprocess.Popen(
            [*self.prefix, *command],
            env=own | dict(self.environment),
            stdout=self.log,
            stderr=self.log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def kill(self) -> None:
        """End it and all that it started with SIGKILL; return when it is gone."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        if self.log is not None:
            self.log.close()

    def serving_pid(self) -> int:
        """Return the id of the process that serves: the child of the one that was started."""
        assert self.process is not None
        (child,) = psutil.Process(self.process.pid).children()
        return child.pid

    @contextmanager
    def killed(self) -> Iterator[None]:
        """Kill all of it, and start it anew afterwards."""
        self.kill()
        yield
        self.start()

    @contextmanager
    def service_killed(self) -> Iterator[None]:
        """Kill what serves with SIGKILL; its parent can fork the next one only afterwards."""
        assert self.process is not None
        parent = psutil.Process(self.process.pid)
        parent.suspend()
        try:
            for serving in parent.children(recursive=True):
                serving.kill()
            yield
        finally:
            parent.resume()

    def health(self) -> dict[str, Any] | None:
        """Return what it says of itself; None where it does not answer."""
        try:
            answer = httpx.get(f"{self.url}/health/ready", timeout=5, trust_env=False)
            found: dict[str, Any] = answer.json()
        except (httpx.TransportError, json.JSONDecodeError):
            return None
        return found

    def wait_ready(self, seconds: float = READY_SECONDS) -> float:
        """Wait until it can answer; return the seconds since the call."""
        begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            found = self.health()
            if found is not None and found["status"] == "ready":
                return time.monotonic() - begun
            if self.process is None or self.process.poll() is not None:
                raise RuntimeError(f"the service ended by itself: {self.tail()}")
            time.sleep(GLANCE_SECONDS)
        raise TimeoutError(f"not ready after {seconds:.0f} s: {self.health()} {self.tail()}")

    def processor_seconds(self) -> float:
        """Return the processor time of what serves: what a start takes on an idle machine."""
        assert self.process is not None
        parent = psutil.Process(self.process.pid)
        used = [process.cpu_times() for process in (parent, *parent.children())]
        return float(sum(times.user + times.system for times in used))

    def wait_for(self, what: str, true: Any, seconds: float = READY_SECONDS) -> float:
        """Wait until ``true`` holds of what it says of itself; return the seconds."""
        begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            found = self.health()
            if found is not None and true(found):
                return time.monotonic() - begun
            time.sleep(0.05)
        raise TimeoutError(f"{what}: not within {seconds:.0f} s: {self.health()} {self.tail()}")

    def tail(self) -> str:
        """Return the end of its log."""
        text = (self.settings.folder / "logs" / "service.log").read_bytes()
        return text[-2000:].decode(errors="replace")


def alarm_codes(found: Mapping[str, Any]) -> set[str]:
    """Return the codes of a site's alarms."""
    return {alarm["code"] for alarm in found["alarms"]}


@contextmanager
def running(
    settings: SiteSettings,
    *,
    environment: Mapping[str, str] | None = None,
    prefix: tuple[str, ...] = (),
) -> Iterator[SiteProcess]:
    """Run a site's service, which is ready when this yields, and end it."""
    site = SiteProcess(settings, environment or {}, prefix)
    site.start()
    try:
        site.wait_ready()
        yield site
    finally:
        site.kill()
