"""Proof that this machine's software computes true per-sample gradients, kept between rounds."""

from __future__ import annotations

import fcntl
import json
import logging
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from common.folders import write_private
from common.gradient_check import GradientCheck, check_gradients
from common.model import Scope
from common.recipe import Recipe

logger = logging.getLogger(__name__)

SOFTWARE = ("wardround", "torch", "opacus", "timm")
_PROOFS = TypeAdapter(dict[str, str])


def ensure_gradients(
    recipe: Recipe,
    *,
    trainable: Scope,
    proofs: Path,
    check: Callable[..., GradientCheck] = check_gradients,
) -> None:
    """Run the gradient self-test, unless it passed here before with the very same software.

    Parameters
    ----------
    recipe : Recipe
        Its network is tested.
    trainable : {"all", "bias", "head"}
        The scope that will be trained.
    proofs : Path
        ``selftest.json`` of the site: what passed, and when.
    check : callable
        For tests.

    Raises
    ------
    PrivacyRefused
        With code ``self-test-failed``.
    """
    subject = _subject(recipe, trainable)
    if subject in _read(proofs):
        return
    check(recipe, trainable=trainable)
    proofs.parent.mkdir(parents=True, exist_ok=True)
    with proofs.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        passed = {**_read(proofs), subject: datetime.now(UTC).isoformat(timespec="seconds")}
        write_private(proofs, json.dumps(passed, indent=1).encode())


def _subject(recipe: Recipe, trainable: Scope) -> str:
    model = recipe.model
    software = " ".join(f"{name}={version(name)}" for name in SOFTWARE)
    machine = f"{platform.node()} {platform.machine()} python={platform.python_version()}"
    network = f"{model.architecture} {model.normalisation} {trainable} {len(recipe.classes)}"
    return f"{network} {software} {machine}"


def _read(proofs: Path) -> dict[str, str]:
    try:
        return _PROOFS.validate_json(proofs.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError):
        logger.warning("self-test-proofs-unreadable")
        return {}  # test again: a lost proof costs seconds
