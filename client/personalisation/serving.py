"""Serving a release with the site's own head on it, where there is one for it."""

from __future__ import annotations

import logging

import torch

from client.inference.engine import InferenceEngine
from client.personalisation.head import PersonalHeads
from client.releases.cache import LocalRelease
from common.errors import ModelError, ReleaseError

log = logging.getLogger(__name__)


def load_personalised(
    release: LocalRelease, *, heads: PersonalHeads, device: torch.device
) -> InferenceEngine:
    """Load a release, with the head that belongs to it; raises as `InferenceEngine.load`.

    A head with which the self-test fails is removed: the plain release then answers, and is never
    called unusable for the head's sake. A head of another release stays: that one may be what
    answers, while this one is only judged.
    """
    head = heads.find(release.manifest.model_digest)
    if head is not None:
        try:
            return InferenceEngine.load(release, device=device, head=head)
        except (ModelError, ReleaseError) as error:
            if error.code == "device-memory":
                raise
            log.error("event=personal-head-unusable code=%s", error.code)
            heads.forget()
    return load_plain(release, device=device)


def load_plain(release: LocalRelease, *, device: torch.device) -> InferenceEngine:
    """Load a release as it was published; raises as `InferenceEngine.load`."""
    return InferenceEngine.load(release, device=device)


def outdated(engine: InferenceEngine, *, heads: PersonalHeads) -> bool:
    """Tell whether another head, or none, is to answer than the one that does."""
    head = heads.find(engine.digest)
    return engine.head_digest != (head.digest if head is not None else None)
