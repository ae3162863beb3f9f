"""One answer of the model, as the site keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal


@dataclass(frozen=True)
class Answered:
    """What one model version said of one image.

    Attributes
    ----------
    request_id : str
        As the answer and the audit log name it.
    task : str
        The recipe's name.
    pixels : str
        SHA-256 (hex) of the decoded pixels, as `client.cases.accepted_image.pixels_digest` makes
        it: by it an answer is found for the case that was stored of the same image.
    model_version : int
    model_digest : str
    head_digest : str or None
        Of the site's own head, where that answered.
    probabilities : tuple of float
        In the order of the recipe's classes.
    positive_probability : float
        In [0, 1].
    threshold : float
        That the verdict was made with.
    verdict : {"positive", "negative"}
    uncertainty : float or None
        0 to 1, as shown; None where none was computed.
    referred : bool
        The answer asked for a human.
    warnings : tuple of str
        Codes.
    statistics : tuple of float
        Of the input, as `client.monitoring` names them; may be empty.
    answered_at : datetime
        UTC.
    """

    request_id: str
    task: str
    pixels: str
    model_version: int
    model_digest: str
    head_digest: str | None
    probabilities: tuple[float, ...]
    positive_probability: float
    threshold: float
    verdict: Literal["positive", "negative"]
    uncertainty: float | None
    referred: bool
    warnings: tuple[str, ...]
    statistics: tuple[float, ...]
    answered_at: datetime

    def label(self, classes: Sequence[str], positive_classes: Sequence[str]) -> str | None:
        """Return the class that the verdict stands for: the likeliest on the verdict's side.

        With a threshold below one half the likeliest class of all may be on the other side.
        None where the answer is not one of this recipe.

        Parameters
        ----------
        classes : sequence of str
            The recipe's, in its order.
        positive_classes : sequence of str
        """
        if len(classes) != len(self.probabilities):
            return None
        positive = self.verdict == "positive"
        side = [
            (probability, name)
            for probability, name in zip(self.probabilities, classes, strict=True)
            if (name in positive_classes) == positive
        ]
        return max(side, key=lambda pair: pair[0])[1] if side else None
