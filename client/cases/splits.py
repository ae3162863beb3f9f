"""Which side a patient is on, training or holdout: drawn once, by keyed hash, kept for ever.

The side belongs to the patient, never to the image: with two views of a breast on two sides the
evaluation would only measure memory.
"""

from __future__ import annotations

from typing import Literal

from client.cases.pseudonyms import Pseudonyms
from common.errors import CaseRefused

Split = Literal["train", "holdout"]

# What data sets call them. Everything that is not trained on is holdout: a validation fold that
# was used to stop or to choose elsewhere must not be trained on here either.
SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "holdout",
    "valid": "holdout",
    "validation": "holdout",
    "test": "holdout",
    "testing": "holdout",
    "holdout": "holdout",
}


def parse_split(text: str | None) -> Split | None:
    """Read a split as data sets write it; blank is None.

    Raises
    ------
    CaseRefused
        ``split-unknown``.
    """
    if text is None or not text.strip():
        return None
    split = SPLIT_NAMES.get(text.strip().lower())
    if split is None:
        raise CaseRefused(
            "The split is none that is known.",
            action=f"Use one of {', '.join(SPLIT_NAMES)}, or leave it blank.",
            code="split-unknown",
        )
    return split


def draw_split(patient: str, pseudonyms: Pseudonyms, holdout_fraction: float) -> Split:
    """Return the side of a new patient.

    Parameters
    ----------
    patient : str
        The pseudonym.
    pseudonyms : Pseudonyms
        Holder of the site's key: nobody outside can tell, or choose, a patient's side.
    holdout_fraction : float
        Share of patients held out, 0 to 0.9. Changing it later moves nobody.
    """
    return "holdout" if pseudonyms.fraction(patient) < holdout_fraction else "train"
