"""The site's own head on disk: bound to one release, readable by the site's user alone.

It is trained on the site's patients without noise, so it says about them what any model says of
its training data. Nothing sends it: what leaves a site passes the outbox, which knows no such
content. It goes with a new release, with a patient's withdrawal, and by ``--off``.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from client.settings import SiteSettings
from client.withdrawn_mark import mark
from common.folders import write_private
from common.plan import Hex64
from common.update import tensors_digest

logger = logging.getLogger(__name__)

_KEY = "personal-head"
Floats = dict[str, NDArray[np.float32]]


class _Header(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    model_digest: Hex64
    digest: Hex64


@dataclass(frozen=True)
class PersonalHead:
    """The classifier's tensors, and the digest of the release's weights that they belong to."""

    model_digest: str
    tensors: Floats

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the tensors."""
        return tensors_digest(self.tensors)


class PersonalHeads:
    """The one head that a site may have.

    Parameters
    ----------
    settings : SiteSettings
        The site.
    """

    def __init__(self, settings: SiteSettings) -> None:
        self._path: Path = settings.data / "personal-head.safetensors"

    @property
    def file(self) -> Path:
        """Where it is kept."""
        return self._path

    def keep(self, head: PersonalHead, *, withdrawn: int = 0) -> None:
        """Write a head in place of the one before; OSError if the disk failed.

        ``withdrawn`` is what `client.withdrawn_mark` says of it.
        """
        header = _Header(model_digest=head.model_digest, digest=head.digest)
        ordered = {name: np.array(array, order="C") for name, array in head.tensors.items()}
        told = {_KEY: header.model_dump_json(), **mark(withdrawn)}
        write_private(self._path, save(ordered, metadata=told))

    def find(self, model_digest: str) -> PersonalHead | None:
        """Return the head of this release; one that is damaged or another's counts as none."""
        try:
            with safe_open(os.fspath(self._path), framework="numpy") as file:
                header = _Header.model_validate_json((file.metadata() or {}).get(_KEY, ""))
                tensors = {n: np.asarray(file.get_tensor(n)) for n in file.keys()}  # noqa: SIM118
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, ValidationError):
            logger.warning("personal-head-damaged")
            return None
        head = PersonalHead(header.model_digest, tensors)
        if head.digest != header.digest:
            logger.warning("personal-head-damaged")
            return None
        return head if header.model_digest == model_digest else None

    def keep_only(self, model_digest: str) -> None:
        """Remove a head of another release; it does no harm where the disk will not let it go."""
        try:
            if self._path.exists() and self.find(model_digest) is None:
                self.forget()
        except OSError as error:
            logger.warning("personal-head-stays error=%s", type(error).__name__)

    def forget(self) -> bool:
        """Remove it; tell whether there was one."""
        there = self._path.exists()
        self._path.unlink(missing_ok=True)
        return there
