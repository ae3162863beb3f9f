"""The way to a PACS for `dicomweb_client`: an adapter of requests that bounds size and time.

requests knows no bound on a body, and its timeout is between two bytes. Here a body beyond the
limit is not read on, and one request ends when its time is over, however slowly the bytes come.
Redirects are not followed: they could lead the password elsewhere.
"""

from __future__ import annotations

import io
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict

from common.errors import ConfigurationError, ProcessError

AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_SILENCE_SECONDS = 15.0


class BoundedAdapter(BaseAdapter):
    """Sends requests by httpx.

    Parameters
    ----------
    maximum_bytes : int
        Of a body.
    seconds : float
        Of one request, from connecting to its last byte.
    ca : Path, optional
        CA certificates (PEM) instead of the system's.

    Raises
    ------
    ConfigurationError
        If ``ca`` cannot be read.
    """

    def __init__(self, *, maximum_bytes: int, seconds: float, ca: Path | None = None) -> None:
        super().__init__()
        self._maximum, self._seconds = maximum_bytes, seconds
        try:
            self._tls = ssl.create_default_context(cafile=ca)
        except OSError as error:
            raise ConfigurationError(
                f"The PACS' CA certificate {ca} cannot be read ({type(error).__name__}).",
                action="Name a PEM file as `ca` in the [dicomweb] table.",
            ) from error

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,  # noqa: ARG002  # requests asks with all of them
        timeout: Any = None,  # noqa: ARG002
        verify: Any = True,  # noqa: ARG002
        cert: Any = None,  # noqa: ARG002
        proxies: Mapping[str, str] | None = None,  # noqa: ARG002
    ) -> requests.Response:
        """Send a request, and return its answer with the whole body.

        Raises
        ------
        ProcessError
            ``dicomweb-away``, ``dicomweb-too-slow`` or ``dicomweb-too-large``.
        """
        late = threading.Event()
        client = httpx.Client(
            verify=self._tls,
            timeout=min(_SILENCE_SECONDS, self._seconds),
            trust_env=False,
            follow_redirects=False,
        )

        def cut() -> None:
            late.set()
            client.close()

        timer = threading.Timer(self._seconds, cut)
        timer.daemon = True
        timer.start()
        try:
            return self._sent(client, request)
        except ProcessError:
            raise
        except Exception as error:  # of a connection cut under its feet, almost anything
            connecting = isinstance(error, httpx.ConnectTimeout)
            if late.is_set() or (isinstance(error, httpx.TimeoutException) and not connecting):
                raise _trouble("too-slow", "took too long") from error
            raise _trouble("away", f"did not answer ({type(error).__name__})") from error
        finally:
            timer.cancel()
            client.close()

    def close(self) -> None:
        """Nothing is kept open between requests."""

    def _sent(self, client: httpx.Client, request: requests.PreparedRequest) -> requests.Response:
        headers = {name: str(value) for name, value in request.headers.items()}
        headers.pop("Host", None)  # without its port, as dicomweb_client writes it
        headers["Accept-Encoding"] = "identity"  # small bodies stay small
        if headers.get("Accept", "").startswith("multipart/related"):
            headers["Accept"] = AS_STORED
        assert request.url is not None
        assert request.method is not None
        with client.stream(request.method, request.url, headers=headers) as answer:
            if 300 <= answer.status_code < 400:
                raise _trouble("away", "sent us elsewhere")  # requests would go there
            body = self._body(answer)
        response = requests.Response()
        response.status_code = answer.status_code
        response.headers = CaseInsensitiveDict(answer.headers.items())
        response.url, response.request = request.url, request
        response.raw = io.BytesIO(body)
        return response

    def _body(self, answer: httpx.Response) -> bytes:
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise _trouble("malformed", "compressed its answer though it was told not to")
        parts: list[bytes] = []
        size = 0
        for part in answer.iter_raw():
            size += len(part)
            if size > self._maximum:
                raise _trouble("too-large", f"sent more than {self._maximum} bytes")
            parts.append(part)
        return b"".join(parts)


def _trouble(code: str, how: str) -> ProcessError:
    return ProcessError(
        f"The PACS {how}.",
        meaning="Its images are fetched later.",
        action="Look at its DICOMweb service if this goes on.",
        code=f"dicomweb-{code}",
    )
