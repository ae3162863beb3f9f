"""A round's accepted answers as files, so that a coordinator that is killed does not lose them.

A site trains a round once, and its privacy is spent then. So an answer is on disk, durably,
before the registry calls it accepted, and a round that goes on after an interruption uses what is
there instead of asking again. A file is one site's update: it is readable by the coordinator's
user alone, and goes when the round or the campaign ends, whichever way.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from common.errors import StoreError
from common.evaluation import SiteEvaluation
from common.folders import write_private
from common.records import Receipt
from common.update import ModelUpdate, UpdateBinding

logger = logging.getLogger(__name__)

_KEY = "answer"


class AnswerHeader(BaseModel):
    """What came with an update; ``bytes`` and ``sha256`` are of the whole answer as it came."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: str
    norm: float
    receipt: Receipt
    evaluation: SiteEvaluation | None
    digest: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class KeptAnswer:
    """An accepted answer that was read back, whole."""

    header: AnswerHeader
    delta: Mapping[str, NDArray[np.float32]]


class KeptAnswers:
    """The accepted answers of one round.

    Parameters
    ----------
    folder : Path
        The campaign's; a round's answers are in ``answers-<round>`` there, with mode 0700.
    number : int
        The round's.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self._folder = folder / f"answers-{number:06d}"

    def keep(
        self,
        header: AnswerHeader,
        delta: Mapping[str, NDArray[np.float32]],
        *,
        several: bool = False,
    ) -> None:
        """Write an answer; when this returns it survives a power cut.

        Parameters
        ----------
        header : AnswerHeader
            What came with it.
        delta : mapping of str to ndarray
            The update.
        several : bool, default False
            Whether a site may answer more than once here; its newest answer replaces the one
            before otherwise.

        Raises
        ------
        StoreError
            If the disk failed.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            tensors = {name: np.array(array, order="C") for name, array in delta.items()}
            data = save(tensors, metadata={_KEY: header.model_dump_json()})
            name = f"{header.site}-{header.receipt.round:06d}" if several else header.site
            write_private(self._folder / f"{name}.safetensors", data)
        except OSError as error:
            raise StoreError(
                f"An accepted update cannot be kept ({error.strerror or error}).",
                action="Free disk space at the coordinator, then resume the campaign.",
                code="updates-disk",
            ) from error

    def read(
        self, useful: Callable[[str], bool] | None = None, *, site: str | None = None
    ) -> Iterator[KeptAnswer]:
        """Yield the answers in order of site and round; drop what is damaged, or not useful.

        Parameters
        ----------
        useful : callable, optional
            Tells of a base model's digest whether answers to requests with it are of use.
        site : str, optional
            Only this site's, of those that were kept as ``several``.
        """
        pattern = "*" if site is None else f"{site}-??????"
        for path in sorted(self._folder.glob(f"{pattern}.safetensors")):
            answer = _read(path)
            if answer is None or not (useful is None or useful(answer.header.receipt.base_digest)):
                logger.warning("kept-answer-unusable file=%s", path.name)
                path.unlink(missing_ok=True)
                continue
            yield answer

    def remove(self) -> None:
        """Remove all; harmless where there is none."""
        shutil.rmtree(self._folder, ignore_errors=True)


def remove_answers(folder: Path, *, through: int | None = None) -> None:
    """Remove the answers of a campaign's rounds: of all, or of those up to ``through``."""
    for path in folder.glob("answers-*"):
        number = path.name.removeprefix("answers-")
        if through is None or not number.isdigit() or int(number) <= through:
            shutil.rmtree(path, ignore_errors=True)


def _read(path: Path) -> KeptAnswer | None:
    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            told = (file.metadata() or {}).get(_KEY, "")
            delta = {name: np.asarray(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
        header = AnswerHeader.model_validate_json(told)
    except (OSError, SafetensorError, ValidationError, json.JSONDecodeError):
        return None
    receipt = header.receipt
    bound = UpdateBinding(receipt.campaign, receipt.round, receipt.nonce, receipt.base_digest)
    if ModelUpdate(bound, delta).digest != header.digest:
        return None
    return KeptAnswer(header, delta)
