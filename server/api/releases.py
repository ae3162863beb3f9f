"""The release repository over HTTP: exactly the files that it has, by name, nothing else.

Authenticity is TUF's business, not this module's: a client believes the signatures.
"""

from __future__ import annotations

import re
import stat
from datetime import datetime
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict

from common.errors import NotFound
from common.release import ReleaseManifest, Version
from server.api.authentication import Viewer
from server.api.services import Services

router = APIRouter(prefix="/releases", tags=["releases"])

METADATA_NAME = re.compile(r"timestamp\.json|[1-9][0-9]{0,9}\.(root|snapshot|targets)\.json")
TARGET_NAME = re.compile(
    r"[0-9a-f]{64}\.(release-[1-9][0-9]{0,9}\.json"
    r"|latest-[a-z0-9][a-z0-9._-]{0,62}\.json"
    r"|model-[0-9a-f]{64}\.safetensors)"
)
FOR_EVER = "public, max-age=31536000, immutable"


class ReleaseDocument(BaseModel):
    """One line of the list of releases; a rollback ``restores`` an older one's weights."""

    model_config = ConfigDict(frozen=True)

    version: int
    task: str
    architecture: str
    model_digest: str
    campaign: str
    rounds: int
    sites: tuple[str, ...]
    macro_auroc: float | None
    majority_baseline: float | None
    created_at: datetime
    restores: Version | None = None

    @classmethod
    def of(cls, manifest: ReleaseManifest) -> ReleaseDocument:
        """Summarise a manifest."""
        return cls(
            version=manifest.version,
            task=manifest.task,
            architecture=manifest.recipe.model.architecture,
            model_digest=manifest.model_digest,
            campaign=manifest.lineage.campaign,
            rounds=manifest.lineage.rounds,
            sites=tuple(part.site for part in manifest.lineage.sites),
            macro_auroc=manifest.metrics.candidate.macro_auroc,
            majority_baseline=manifest.metrics.candidate.majority_baseline,
            created_at=manifest.created_at,
            restores=manifest.lineage.restores,
        )


class Releases(BaseModel):
    """All releases, the newest first: what the list command prints."""

    model_config = ConfigDict(frozen=True)

    releases: tuple[ReleaseDocument, ...]


@router.get("", summary="All releases, the newest first")
def list_releases(services: Services, _visitor: Viewer) -> list[ReleaseDocument]:
    """List releases as the signed repository has them."""
    return [ReleaseDocument.of(m) for m in reversed(services.publisher.releases())]


@router.get("/metadata/{name}", summary="A TUF metadata file")
def metadata(name: str, request: Request, services: Services) -> Response:
    """Return a metadata file.

    It is read at once: the timestamp is replaced while the service runs, so that its size and
    its bytes must not be taken in two steps.
    """
    path = _existing(services.settings.releases / "metadata", name, METADATA_NAME)
    said = request.headers
    services.presence.note(said.get("wardround-site"), said.get("wardround-release"))
    caching = "no-cache" if name == "timestamp.json" else FOR_EVER
    return Response(path.read_bytes(), 200, {"Cache-Control": caching}, "application/json")


@router.get("/targets/{name:path}", summary="A TUF target, by its hash-prefixed name")
def target(name: str, services: Services) -> Response:
    """Stream a target file; it never changes under its name."""
    path = _existing(services.settings.releases / "targets", name, TARGET_NAME)
    kind = "application/json" if name.endswith(".json") else "application/octet-stream"
    return FileResponse(path, headers={"Cache-Control": FOR_EVER}, media_type=kind)


def _existing(folder: Path, name: str, allowed: re.Pattern[str]) -> Path:
    # The pattern has no separator in it, so that no name can lead out of the folder.
    path = folder / name if allowed.fullmatch(name) else None
    try:
        if path is not None and stat.S_ISREG(path.lstat().st_mode):
            return path
    except OSError:
        path = None
    raise NotFound("The release repository has no such file.", code="no-such-file")
