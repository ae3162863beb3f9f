"""What a reader should look at in a case before confirming it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from client.reading.image_quality import MESSAGES as IMAGE_MESSAGES

NEAR_DUPLICATE_OTHER_PATIENT = "near-duplicate-other-patient"
NEAR_DUPLICATE_SAME_PATIENT = "near-duplicate-same-patient"
BURNED_IN_TEXT = "burned-in-text"
BURNED_IN_UNKNOWN = "burned-in-unknown"

MESSAGES = IMAGE_MESSAGES | {
    NEAR_DUPLICATE_OTHER_PATIENT: "Another patient's image looks all but the same: one of the two "
    "may carry the wrong patient number, and the pair may lie on both sides of the split.",
    NEAR_DUPLICATE_SAME_PATIENT: "The same patient's image looks all but the same.",
    BURNED_IN_TEXT: "There seems to be writing in the picture, which may name the patient.",
    BURNED_IN_UNKNOWN: "The DICOM header does not rule out writing in the picture.",
}
FROM_ANSWER = "The model's answer on this picture came with this warning."


@dataclass(frozen=True)
class Flag:
    """One flag of a case.

    Attributes
    ----------
    code : str
    message : str
        For a reader.
    blocks : bool
        The case is not confirmed until a reader sets the flag aside.
    other_case : str or None
        The near-duplicate's case.
    distance : int or None
        Bits of 256 in which the near-duplicate's perceptual hash differs.
    raised_at : datetime
        UTC.
    dismissed_by : str or None
        Who set it aside.
    dismissed_at : datetime or None
    """

    code: str
    message: str
    blocks: bool
    other_case: str | None
    distance: int | None
    raised_at: datetime
    dismissed_by: str | None = None
    dismissed_at: datetime | None = None

    @property
    def open(self) -> bool:
        """Nobody set it aside."""
        return self.dismissed_by is None
