"""What the coordinator does by itself: publish what is approved, keep the timestamp fresh."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Protocol

from common.errors import WardroundError
from common.release import ReleaseManifest
from server.publishing.publisher import ReleasePublisher
from server.publishing.weights import candidate_weights, restored_weights
from server.registry.records import Candidate
from server.registry.registry import Registry
from server.supervision import SupervisedTask

logger = logging.getLogger(__name__)

PUBLISH_SECONDS = 2.0
TIMESTAMP_CHECK_SECONDS = 5.0


class CandidateSource(Protocol):
    """What publishing asks of the registry."""

    def approved_candidates(self) -> Iterable[Candidate]:
        """Return the candidates that are to be published, the oldest first."""

    def record_release(self, manifest: ReleaseManifest) -> object:
        """Record that a candidate was published; repeatable."""

    def still_approved(self, identifier: str) -> bool:
        """Tell whether a candidate may be published now; what may not waits for a person."""


def publish_approved(
    publisher: ReleasePublisher, candidates: CandidateSource, models: Path
) -> tuple[int, ...]:
    """Publish every approved candidate and record it; one that fails does not hold up the next.

    The repository is written first and the registry second. A crash in between leaves an
    approved candidate that is published already: the next call finds its version and records it.

    What could not be published before the champion was rolled back, held or replaced waits for a
    person instead: its higher version would undo that.

    Returns
    -------
    tuple of int
        The versions, in the order of approval.

    Raises
    ------
    WardroundError
        The first candidate's that failed, after the others were tried.
    """
    versions: list[int] = []
    failure: WardroundError | None = None
    for candidate in candidates.approved_candidates():
        try:
            weights = candidate_weights(publisher, models, candidate)
            version = publisher.publish(
                candidate.draft,
                weights,
                sites=candidate.sites,
                before=partial(_check_approval, candidates, candidate.id),
            )
            candidates.record_release(publisher.manifest(version))
            versions.append(version)
        except _Waits:
            logger.warning("candidate-waits-again candidate=%s", candidate.id)
        except WardroundError as error:
            logger.warning("candidate-unpublished candidate=%s code=%s", candidate.id, error.code)
            failure = failure or error
    if failure is not None:
        raise failure
    return tuple(versions)


def follow_registry(publisher: ReleasePublisher, registry: Registry, models: Path) -> None:
    """Publish what is approved, and sign which sites may take what; raises as `publish_approved`.

    The registry is what is wanted. A release that it does not know of yet is left alone.
    """
    try:
        publish_approved(publisher, registry, models)
    finally:
        for task in registry.rollouts.tasks():
            publisher.roll_out(partial(registry.rollouts.wanted, task))


def roll_back(
    publisher: ReleasePublisher,
    registry: Registry,
    models: Path,
    restores: int,
    *,
    by: str,
    reason: str,
    newest: int | None = None,
) -> Candidate:
    """Roll back to a release whose weights can be read; else nothing is withdrawn.

    Raises
    ------
    NotFound, RoundFailed, InputRefused
        As `server.registry.rollouts.Rollouts.roll_back`.
    ReleaseError
        With code ``weights-lost``.
    """
    restored_weights(publisher, models, registry.release(restores).model_digest)
    return registry.rollouts.roll_back(restores, by=by, reason=reason, newest=newest)


def keep_timestamp_fresh(
    publisher: ReleasePublisher, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> None:
    """Sign a new timestamp when a third of the old one's life has passed."""
    if clock() >= publisher.refresh_due():
        expires = publisher.refresh_timestamp()
        logger.info("timestamp-refreshed expires=%s", expires.isoformat())


def background_tasks(
    publisher: ReleasePublisher,
    registry: Registry,
    models: Path,
    *,
    timestamp_seconds: int,
) -> tuple[SupervisedTask, ...]:
    """Return the coordinator's tasks, not yet started."""

    def publish() -> None:
        follow_registry(publisher, registry, models)

    def refresh() -> None:
        keep_timestamp_fresh(publisher)

    pause = min(TIMESTAMP_CHECK_SECONDS, timestamp_seconds / 10)
    return (
        SupervisedTask("timestamp", refresh, every_seconds=pause),
        SupervisedTask("publish", publish, every_seconds=PUBLISH_SECONDS),
    )


class _Waits(Exception):
    """The candidate is to be published no more."""


def _check_approval(candidates: CandidateSource, identifier: str) -> None:
    if not candidates.still_approved(identifier):
        raise _Waits
