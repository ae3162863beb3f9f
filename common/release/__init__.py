"""The release manifest: what a released model is, where it comes from and what it scored.

It travels as a TUF target, so that its signature, freshness and version order are TUF's
business (https://theupdateframework.github.io/specification/latest/); this room only says
what the signed bytes mean. Everything that a site needs to serve the model is in it.
"""

from __future__ import annotations

from common.release.document import Version
from common.release.latest import LatestRelease, LimitedRelease, parse_latest
from common.release.lineage import Lineage, SiteContribution
from common.release.manifest import (
    MAXIMUM_MANIFEST_BYTES,
    MAXIMUM_MODEL_BYTES,
    ModelFile,
    ReleaseDraft,
    ReleaseManifest,
    parse_manifest,
)
from common.release.scores import GateCheck, OperatingPoint, ReleaseMetrics
from common.release.targets import latest_target, model_target, release_target

__all__ = [
    "MAXIMUM_MANIFEST_BYTES",
    "MAXIMUM_MODEL_BYTES",
    "GateCheck",
    "LatestRelease",
    "LimitedRelease",
    "Lineage",
    "ModelFile",
    "OperatingPoint",
    "ReleaseDraft",
    "ReleaseManifest",
    "ReleaseMetrics",
    "SiteContribution",
    "Version",
    "latest_target",
    "model_target",
    "parse_latest",
    "parse_manifest",
    "release_target",
]
