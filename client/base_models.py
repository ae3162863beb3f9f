"""The models that a site was sent last, so that a coordinator need only send what changed.

A request carries a whole model, or a step from one that the site holds (`common.wire.ModelStep`).
The result must have the digest that the signed plan names, whichever way it came: the round
handler checks that. A site that does not hold the model refuses with ``base-unknown``, and is sent
the whole one. The files may be deleted at any time; a model that was sent is no secret of the site.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from client.plan_keys import read_plan_keys
from client.settings import SiteSettings
from common.compression import Packed, apparent_shapes, decode
from common.errors import ModelError, PlanRefused, StoreError, UpdateRefused
from common.model_files import read_safetensors, write_safetensors
from common.plan import SignedPlan, verify_plan
from common.update import Tensors, apply, tensors_digest
from common.wire import ModelStep

logger = logging.getLogger(__name__)

KEPT = 2


class BaseModels:
    """A site's newest models, by digest.

    Parameters
    ----------
    settings : SiteSettings
        The site.
    """

    def __init__(self, settings: SiteSettings) -> None:
        self._settings = settings
        self._folder = settings.data / "base-models"

    def resolve(self, signed: SignedPlan, arrived: Tensors, step: ModelStep | None) -> Tensors:
        """Return the whole model that a request speaks of.

        Nothing is computed for a plan that nobody known has signed.

        Raises
        ------
        PlanRefused
            With code ``base-unknown``, ``request-malformed`` or one of `verify_plan`.
        """
        if step is None:
            return arrived
        verify_plan(signed, read_plan_keys(self._settings), now=time.time())
        held = self._load(step.base_digest)
        if held is None:
            raise PlanRefused(
                "The site does not hold the model that a step starts from.", code="base-unknown"
            )
        try:
            change = decode(Packed(step.compression, arrived), apparent_shapes(arrived))
            return apply(held, change)
        except UpdateRefused as error:
            raise PlanRefused(
                "A step does not fit the model that it starts from.", code="request-malformed"
            ) from error

    def keep(self, digest: str, model: Tensors) -> None:
        """Keep a model whose digest was checked, in place of the oldest; never raises."""
        path = self._path(digest)
        try:
            if not path.is_file():
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_safetensors(path, model)
                path.chmod(0o600)
            path.touch()
            newest = sorted(self._folder.glob("*.safetensors"), key=lambda p: p.stat().st_mtime_ns)
            for old in newest[:-KEPT]:
                old.unlink(missing_ok=True)
        except Exception as error:  # without it the next model comes whole
            logger.warning("base-not-kept error=%s", type(error).__name__)

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}.safetensors"

    def _load(self, digest: str) -> Tensors | None:
        path = self._path(digest)
        if not path.is_file():
            return None
        try:
            model = read_safetensors(path)
        except (ModelError, StoreError, OSError):
            model = {}
        if tensors_digest(model) != digest:
            logger.warning("base-damaged digest=%s", digest)
            path.unlink(missing_ok=True)
            return None
        return model
