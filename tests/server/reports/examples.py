"""Reports of a campaign of fake sites, and of what an older coordinator left."""

from __future__ import annotations

from pathlib import Path

from common.release import ModelFile, ReleaseManifest, model_target
from server.registry.records import Candidate
from tests.fakes import FakeSite
from tests.server.campaigns import Coordinator

SITES = ("north", "south", "west")


def finished(folder: Path) -> tuple[Coordinator, Candidate]:
    """Run a whole campaign of three fake sites."""
    coordinator = Coordinator(folder, [FakeSite(name) for name in SITES])
    return coordinator, coordinator.run(coordinator.create(epsilon=8.0))


def released(coordinator: Coordinator, candidate: Candidate, version: int = 1) -> ReleaseManifest:
    """Record a candidate as published, as the publisher does, but without a repository."""
    file = ModelFile(name=model_target(candidate.model_digest), sha256="5" * 64, bytes=100)
    manifest = candidate.draft.released(version, file)
    coordinator.registry.record_release(manifest)
    return manifest
