"""Where a candidate's weights are read, and those of a release that is to come back."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load, load_file

from common.errors import ReleaseError
from common.update import Tensors, tensors_digest
from server.publishing.publisher import ReleasePublisher
from server.registry.records import Candidate


def candidate_weights(publisher: ReleasePublisher, models: Path, candidate: Candidate) -> Tensors:
    """Read the weights of a candidate that is to be published.

    A rollback's lie in the signed repository, too: `restored_weights`.

    Raises
    ------
    ReleaseError
        As `read_weights` and `restored_weights`.
    """
    if candidate.draft.lineage.restores is None:
        return read_weights(models, candidate)
    return restored_weights(publisher, models, candidate.model_digest)


def read_weights(models: Path, candidate: Candidate) -> Tensors:
    """Read a candidate's weights.

    Raises
    ------
    ReleaseError
        With code ``model-missing`` or ``model-damaged``.
    """
    path = models / f"{candidate.model_digest}.safetensors"
    try:
        tensors: Tensors = load_file(path)
    except FileNotFoundError as error:
        raise _unreadable(path, "is missing", "model-missing") from error
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise _unreadable(path, "cannot be read", "model-damaged") from error
    return tensors


def restored_weights(publisher: ReleasePublisher, models: Path, digest: str) -> Tensors:
    """Read the weights of a release: in ``data/models``, else where sites have them from.

    Raises
    ------
    ReleaseError
        With code ``weights-lost``, where neither has them whole.
    """
    try:
        tensors: Tensors = load_file(models / f"{digest}.safetensors")
        if tensors_digest(tensors) == digest:
            return tensors
    except (OSError, SafetensorError, ValueError, KeyError):
        pass  # the repository's own are verified by what it signed
    try:
        return load(publisher.model_bytes(digest))
    except (ReleaseError, SafetensorError) as error:
        raise ReleaseError(
            f"The weights {digest[:12]} are whole neither in data/models nor in data/releases.",
            meaning="They cannot be brought back: sites keep what they have.",
            action="Restore data/models from backup; or hold the release, or roll back to another.",
            code="weights-lost",
        ) from error


def _unreadable(path: Path, how: str, code: str) -> ReleaseError:
    return ReleaseError(
        f"The weights {path.name} {how}.",
        meaning="An approved candidate cannot be published.",
        action="Restore data/models from backup; it is then published by itself.",
        code=code,
    )
