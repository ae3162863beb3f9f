"""What a reader sends, and whether it can be taken."""

from __future__ import annotations

from dataclasses import dataclass

from client.review.detail import Read
from client.review.opinions import Verdict
from common.errors import CaseRefused


@dataclass(frozen=True)
class Submission:
    """What a reader sends: see `client.review.room.ReviewRoom.give`."""

    verdict: Verdict
    label: str | None = None
    seen: str | None = None


def check_complete(said: Submission) -> None:
    """Refuse an opinion that could be taken for another than was meant."""
    missing = {
        "agree": said.label is None and said.seen is None,
        "correct": said.label is None,
        "unsure": said.label is not None,
    }
    if missing[said.verdict]:
        raise CaseRefused(
            "This opinion is not complete.",
            meaning="It could be taken for another than was meant.",
            action="Send `correct` with a label, `agree` with a label or with what was `seen`, "
            "`unsure` without a label.",
            code="opinion-incomplete",
        )


def named_label(said: Submission, read: Read, *, blind: bool) -> str | None:
    """Return the label that an opinion names, None for unsure.

    Raises
    ------
    CaseRefused
        If there is nothing to agree with, or something else than the reader named.
    """
    if said.verdict != "agree" or (blind and said.label is not None):
        return said.label
    proposed = None if blind or read.proposed is None else read.proposed.label
    if proposed is None:
        raise CaseRefused(
            "There is nothing to agree with yet.",
            meaning="Neither the model nor another reader proposed a label that you were shown.",
            action="Name the label yourself.",
            code="opinion-incomplete",
        )
    if said.label not in (None, proposed):
        raise _changed()
    return proposed


def refuse_changed(said: Submission, read: Read, *, blind: bool) -> None:
    """Refuse an opinion on what no longer is; who reads blind was shown nothing that can change."""
    if said.seen is not None and said.seen != read.seen and not blind:
        raise _changed()


def _changed() -> CaseRefused:
    return CaseRefused(
        "The case is no longer as you were shown it.",
        meaning="Somebody judged it meanwhile, or the model answered anew. Nothing was kept.",
        action="Look at it again.",
        code="review-changed",
    )
