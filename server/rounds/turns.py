"""Each site's turns in a campaign with buffered rounds, durably: what it was asked last.

A site's own rounds count from 1, whatever the model's steps are: its ledger reserves each once,
and its noise is calibrated for so many of them. So which turn a site is in must outlive the
coordinator, and so must the base model of that turn: asked again for the same, a site sends the
same update again (`client.kept_reply`), and asked for anything else it would train anew.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from common.errors import StoreError
from common.folders import write_private
from common.plan import Hex64

logger = logging.getLogger(__name__)

TurnState = Literal["asked", "answered", "refused"]


class Turn(BaseModel):
    """A site's newest turn.

    Attributes
    ----------
    number : int
        The site's own round, from 1.
    base_digest : str
        Of the model that it was asked about.
    evaluate : bool
        Whether it was asked to score that model, too.
    state : {"asked", "answered", "refused"}
        ``asked``: it may have trained, and may send that again. ``answered``: its privacy is
        spent, and nothing more comes. ``refused``: it said no before it trained.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: Annotated[int, Field(ge=1)]
    base_digest: Hex64
    evaluate: bool
    state: TurnState = "asked"


_TURNS = TypeAdapter(dict[str, Turn])


class Turns:
    """The newest turn of each site, in one small file.

    Parameters
    ----------
    folder : Path
        The campaign's.

    Raises
    ------
    StoreError
        With code ``turns-damaged``, here; if the disk failed, later.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "turns.json"
        self._turns: dict[str, Turn] = {}
        try:
            self._turns = _TURNS.validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return
        except (OSError, ValidationError) as error:
            raise StoreError(
                "What the sites were asked last cannot be read.",
                meaning="Asking them anew could spend their privacy twice.",
                action="Restore data/campaigns from backup, or start a new campaign.",
                code="turns-damaged",
            ) from error

    def of(self, site: str) -> Turn | None:
        """Return a site's newest turn; None before its first."""
        return self._turns.get(site)

    def bases(self) -> frozenset[str]:
        """Return the digests of the models that a newest turn may have to be asked about again."""
        return frozenset(turn.base_digest for turn in self._turns.values())

    def begin(self, site: str, turn: Turn) -> None:
        """Write down what a site is about to be asked; when this returns it is durable."""
        self._write(self._turns | {site: turn})

    def settle(self, site: str, state: TurnState) -> None:
        """Write down what became of a site's newest turn."""
        turn = self._turns[site]
        if turn.state != state:
            self._write(self._turns | {site: turn.model_copy(update={"state": state})})

    def remove(self) -> None:
        """Remove the file; harmless where there is none."""
        self._turns = {}
        self._path.unlink(missing_ok=True)

    def _write(self, turns: dict[str, Turn]) -> None:
        document = {site: turn.model_dump() for site, turn in sorted(turns.items())}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_private(self._path, json.dumps(document).encode())
        except OSError as error:
            raise StoreError(
                f"What a site is asked cannot be written down ({error.strerror or error}).",
                action="Free disk space at the coordinator, then resume the campaign.",
                code="updates-disk",
            ) from error
        self._turns = turns
