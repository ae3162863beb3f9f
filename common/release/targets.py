"""The TUF target paths of what a release is made of."""

from __future__ import annotations


def release_target(version: int) -> str:
    """Return the TUF target path of a release's manifest."""
    return f"release-{version}.json"


def model_target(model_digest: str) -> str:
    """Return the TUF target path of a model's weights."""
    return f"model-{model_digest}.safetensors"


def latest_target(task: str) -> str:
    """Return the TUF target path of the pointer to a task's newest release."""
    return f"latest-{task}.json"
