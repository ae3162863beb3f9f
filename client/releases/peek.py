"""A cheap look at whether the coordinator published anything: one small file, nothing believed.

A pull of releases verifies everything and costs some requests; between two of them this asks for
the signed timestamp alone, and compares its bytes with the ones that were verified last. Whatever
comes back can do no more than cause a pull, which then verifies it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import httpx

from client.connection import Connection
from client.settings import SiteSettings
from common.errors import ConfigurationError

logger = logging.getLogger(__name__)

MAXIMUM_BYTES = 65_536
SOCKET_SECONDS = 5.0
CLIENT_SECONDS = 60.0


class TimestampPeek:
    """Looks at ``timestamp.json`` over one kept connection, which is made anew each minute.

    With each look the site says its name and the version that it serves, so that the coordinator's
    page can tell who serves what; behind the gateway, the name is the certificate's.

    Parameters
    ----------
    settings : SiteSettings
        ``coordinator_url``, ``name`` and ``releases`` are used.
    clock : callable, optional
        Returns seconds; `time.monotonic`.
    """

    def __init__(
        self, settings: SiteSettings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._client: httpx.Client | None = None
        self._until = 0.0

    def moved(self, *, serving: int) -> bool:
        """Tell whether the coordinator's timestamp is another one than was verified last.

        Never raises for the network: a coordinator that does not answer, or answers with
        nonsense, has not moved, and the next pull says what is wrong.

        Parameters
        ----------
        serving : int
            The version that answers here, 0 for none.
        """
        try:
            seen = self._fetch(serving)
        except (httpx.HTTPError, ConfigurationError, OSError) as error:
            logger.debug("release-peek-failed error=%s", type(error).__name__)
            self.close()
            return False
        return seen is not None and seen != self._verified()

    def close(self) -> None:
        """Close the connection; the next look opens another."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _fetch(self, serving: int) -> bytes | None:
        url = f"{self._settings.coordinator_url.rstrip('/')}/releases/metadata/timestamp.json"
        said = {"Wardround-Site": self._settings.name, "Wardround-Release": str(serving)}
        with self._kept(httpx.URL(url).host).stream("GET", url, headers=said) as response:
            if response.status_code != httpx.codes.OK:
                return None
            data = b""
            for chunk in response.iter_raw():
                data += chunk
                if len(data) > MAXIMUM_BYTES:
                    self.close()
                    return None
        return data

    def _kept(self, host: str) -> httpx.Client:
        if self._client is None or self._clock() >= self._until:
            self.close()  # so that a renewed certificate is shown soon
            self._until = self._clock() + CLIENT_SECONDS
            self._client = Connection.of(self._settings).client(
                host,
                timeout=SOCKET_SECONDS,
                headers={"Accept-Encoding": "identity", "User-Agent": "wardround-site"},
            )
        return self._client

    def _verified(self) -> bytes:
        try:
            return (self._settings.releases / "tuf" / "timestamp.json").read_bytes()
        except OSError:
            return b""
