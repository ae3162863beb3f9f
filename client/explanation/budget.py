"""How long an explanation may take: looked at before every call of the network."""

from __future__ import annotations

import threading
import time

from common.errors import Busy


class Budget:
    """The time of one explanation.

    Parameters
    ----------
    seconds : float
        From now.
    closing : threading.Event, optional
        Set when the service ends; nothing is computed to its end then.
    """

    def __init__(self, seconds: float, closing: threading.Event | None = None) -> None:
        self._ends = time.monotonic() + seconds
        self._closing = closing or threading.Event()

    def check(self) -> None:
        """Go on.

        Raises
        ------
        Busy
            ``explanation-deadline`` when the time is over, ``closing`` when the service ends.
        """
        if self._closing.is_set():
            raise Busy("The service is closing.", code="closing")
        if time.monotonic() > self._ends:
            raise Busy(
                "The explanation took too long.",
                meaning="The answer itself stands; only its picture is missing.",
                action="Ask for grad-cam, which takes one pass, or try again when less is asked.",
                code="explanation-deadline",
            )
