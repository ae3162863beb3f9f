"""How TUF's files come over the network: HTTPS to one coordinator, one CA, bounded in all ways."""

from __future__ import annotations

import ssl
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx
from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    SlowRetrievalError,
)
from tuf.ngclient import FetcherInterface

from client.connection import Connection
from common.errors import ConfigurationError

SOCKET_SECONDS = 15.0
SLOWEST_BYTES_PER_SECOND = 10_000


class CoordinatorFetcher(FetcherInterface):
    """Downloads over TLS 1.2 or newer, trusting only the CA in the start-up kit.

    Redirects are refused, and so are compressed answers (they are passed on as they are, and
    fail verification). Certificate and proxy are the connection's. A download slower on average
    than 10 kB/s is given up.

    Parameters
    ----------
    url : str
        ``settings.coordinator_url``; must be https.
    connection : Connection
        The CA to trust, the certificate to show and the proxy to take.
    folder : Path
        Where unverified bytes wait; on the disk that will keep them.
    """

    def __init__(self, url: str, *, connection: Connection, folder: Path) -> None:
        parsed = httpx.URL(url)
        if parsed.scheme != "https" or not parsed.host:
            raise ConfigurationError(
                f"coordinator_url {url!r} is no https:// address.",
                action="Correct it in site.toml.",
            )
        self._folder = folder
        self._deadline = float("inf")
        self._client = connection.client(
            parsed.host,
            timeout=SOCKET_SECONDS,
            headers={"Accept-Encoding": "identity", "User-Agent": "wardround-site"},
        )

    def close(self) -> None:
        """Close kept-alive connections."""
        self._client.close()

    @contextmanager
    def download_file(self, url: str, max_length: int) -> Iterator[IO[bytes]]:
        """Yield a temporary file with the answer, at most ``max_length`` bytes.

        As `FetcherInterface.download_file`, but beside the releases instead of in ``/tmp``,
        which may be small, and with a deadline for the whole download.
        """
        allowed = 2 * SOCKET_SECONDS + max_length / SLOWEST_BYTES_PER_SECOND
        self._deadline = time.monotonic() + allowed
        received = 0
        with tempfile.TemporaryFile(dir=self._folder) as file:
            for chunk in self.fetch(url):
                received += len(chunk)
                if received > max_length:
                    raise DownloadLengthMismatchError(f"more than {max_length} bytes")
                file.write(chunk)
            file.seek(0)
            yield file

    def _fetch(self, url: str) -> Iterator[bytes]:
        # A generator's errors escape FetcherInterface.fetch, so they are mapped here.
        try:
            with self._client.stream("GET", url) as response:
                if response.status_code != httpx.codes.OK:
                    raise DownloadHTTPError("HTTP error", response.status_code)
                for chunk in response.iter_raw():  # as it comes: a trickle must be noticed
                    if time.monotonic() > self._deadline:
                        raise SlowRetrievalError("the download is too slow")
                    yield chunk
        except httpx.TimeoutException as error:
            raise SlowRetrievalError("timed out") from error
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise DownloadError(type(error).__name__) from error


def is_untrusted(error: BaseException) -> bool:
    """Tell whether a failed download failed for the server's certificate."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
