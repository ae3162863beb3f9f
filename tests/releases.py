"""A small federation for release tests: a CA, a coordinator folder, a TLS server, a site folder."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from numpy.typing import NDArray
from safetensors.numpy import save_file

from client.settings import SiteSettings
from client.site_folder import create_site_folder
from common.evaluation import Metrics
from common.recipe import load_recipe
from common.release import GateCheck, Lineage, ReleaseDraft, ReleaseMetrics, SiteContribution
from common.update import tensors_digest
from deploy.certificates import Certificate, make_authority, make_server_certificate
from server.coordinator_folder import create_coordinator_folder, plan_public_key
from server.main import compose, server_for
from server.publishing.publisher import ReleasePublisher
from server.registry.records import CampaignSettings, Candidate, TrainablePhase
from server.registry.registry import Registry
from server.settings import CoordinatorSettings

TASK = "mammography"
RECIPE = load_recipe(TASK)


def weights(seed: int) -> dict[str, NDArray[np.generic]]:
    random = np.random.default_rng(seed)
    return {
        "head.weight": random.normal(size=(2, 400)).astype(np.float32),
        "head.bias": random.normal(size=2).astype(np.float32),
        "norm.steps": np.array(seed, dtype=np.int64),
    }


def metrics(auroc: float = 0.8) -> Metrics:
    return Metrics(
        classes=RECIPE.classes,
        count=100,
        macro_auroc=auroc,
        auroc=(auroc, auroc),
        accuracy=0.75,
        balanced_accuracy=0.7,
        majority_baseline=0.6,
        sensitivity=(0.8, 0.6),
    )


def draft(seed: int, *, candidate: str | None = None, task: str = TASK) -> ReleaseDraft:
    return ReleaseDraft(
        recipe=RECIPE.model_copy(update={"name": task}),
        model_digest=tensors_digest(weights(seed)),
        threshold=0.3,
        lineage=Lineage(
            campaign=f"campaign-{seed}",
            candidate=candidate or f"candidate-{seed}",
            rounds=3,
            sites=(SiteContribution(site="north", rounds=3),),
        ),
        metrics=ReleaseMetrics(candidate=metrics()),
        gate=(GateCheck(name="above-majority", passed=True, figure=0.75, limit=0.6),),
        created_at=datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC),
    )


@dataclass
class Coordinator:
    """A coordinator folder with TLS material, and its publisher."""

    settings: CoordinatorSettings
    authority: Certificate
    publisher: ReleasePublisher = field(init=False)

    def __post_init__(self) -> None:
        self.publisher = ReleasePublisher(self.settings)

    @classmethod
    def create(cls, folder: Path, **settings: object) -> Coordinator:
        authority = make_authority()
        server = make_server_certificate(authority, hosts=["127.0.0.1", "localhost"])
        made = create_coordinator_folder(
            folder,
            settings=settings,
            private_files={"server.key": server.key},
            public_files={"server.crt": server.certificate, "ca.crt": authority.certificate},
        )
        return cls(made, authority)

    def publish(self, seed: int, **changes: str) -> int:
        return self.publisher.publish(draft(seed, **changes), weights(seed))

    def site(self, folder: Path, port: int, *, ca: bytes | None = None) -> SiteSettings:
        return create_site_folder(
            folder,
            name="north",
            task=TASK,
            plan_keys=[plan_public_key(self.settings)],
            policy="",
            settings={"coordinator_url": f"https://127.0.0.1:{port}"},
            root_json=self.publisher.initialise(),
            ca_certificate=ca or self.authority.certificate,
        )

    @property
    def metadata(self) -> Path:
        return self.settings.releases / "metadata"

    @property
    def targets(self) -> Path:
        return self.settings.releases / "targets"


def approve(
    coordinator: Coordinator,
    registry: Registry,
    seed: int,
    *,
    passed: bool = True,
    approved: bool = True,
) -> Candidate:
    """Put a campaign with its candidate into the registry, and its weights into data/models."""
    phase = TrainablePhase(first_round=1, scope="head", names=("head.weight",))
    plan = CampaignSettings(rounds=3, epsilon=8.0, quorum=1, phases=(phase,))
    champion = registry.champion(TASK)
    base = None if champion is None else champion.version
    campaign = registry.add_campaign(RECIPE, plan, initial_digest="0" * 64, base_release=base)
    made = draft(seed)
    lineage = made.lineage.model_copy(update={"campaign": campaign.id})
    check = GateCheck(name="above-majority", passed=passed)
    judged = made.model_copy(update={"lineage": lineage, "gate": (check,)})
    save_file(weights(seed), coordinator.settings.models / f"{made.model_digest}.safetensors")
    return registry.add_candidate(lineage.candidate, judged, evaluation=None, approve=approved)


@pytest.fixture
def coordinator(tmp_path: Path) -> Coordinator:
    return Coordinator.create(tmp_path / "coordinator")


@pytest.fixture
def registry(coordinator: Coordinator) -> Iterator[Registry]:
    opened = Registry.open(coordinator.settings)
    yield opened
    opened.close()


def register(registry: Registry, *sites: str) -> None:
    for number, name in enumerate(sites):
        registry.register_site(name, node_id=number + 1, public_key="key")


@contextlib.contextmanager
def served(coordinator: Coordinator, *, port: int = 0) -> Iterator[int]:
    """Serve a coordinator over TLS in a thread; yields the port. Its tasks do not run."""
    services = compose(coordinator.settings)
    for task in services.tasks:
        task.stop()  # a stopped task's thread ends at once, so that tests decide what is published
    server = server_for(services)
    listener = socket.create_server(("127.0.0.1", port))  # connections wait until it accepts
    thread = threading.Thread(target=_run, args=(server, listener), daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()
        services.registry.close()


def _run(server: uvicorn.Server, listener: socket.socket) -> None:
    server.run(sockets=[listener])
