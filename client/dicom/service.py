"""The site's inference service, as the DICOM station calls it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import httpx
from pydantic import ValidationError

from client.access.caller import Role
from client.access.keys import Keys
from client.dicom.answer import Answer, ExplainedAnswer
from client.settings import SiteSettings
from common.database import open_database
from common.errors import NotFound, ProcessError

KEY_NAME = "dicom-station"
_TIMEOUT = 60.0


class Service:
    """The site's inference service, as the station calls it.

    Parameters
    ----------
    url : str
    ca : Path or None
        A CA certificate for it.
    key : str or None
        Of the station, where the service has accounts.
    """

    def __init__(self, url: str, ca: Path | None, *, key: str | None = None) -> None:
        self._url = url.rstrip("/")
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        verify = str(ca) if ca else True
        self._client = httpx.Client(timeout=_TIMEOUT, verify=verify, headers=headers)

    def post(self, path: str, image: bytes) -> bytes | None:
        """Send an image; return the answer's body, None if the image is refused for good.

        Raises
        ------
        ProcessError
            If it did not answer, or cannot now.
        """
        try:
            answer = self._client.post(self._url + path, files={"image": ("image", image)})
            if answer.status_code in (413, 415, 422):
                return None
            answer.raise_for_status()
            return answer.content
        except httpx.HTTPError as error:
            raise _service_away(error) from error


class ServicePredictor:
    """Asks the site's inference service for an answer."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def __call__(self, image: bytes) -> Answer | None:
        """Send the image; see `Predicts`."""
        body = self._service.post("/predict", image)
        try:
            return None if body is None else Answer.model_validate_json(body)
        except ValidationError as error:
            raise _service_away(error) from error


class ServiceExplainer:
    """Asks the site's inference service for a heat map."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def __call__(self, image: bytes) -> ExplainedAnswer | None:
        """Send the image; see `Explains`."""
        body = self._service.post("/explain", image)
        try:
            return None if body is None else ExplainedAnswer.model_validate_json(body)
        except ValidationError as error:
            raise _service_away(error) from error


def site_service(settings: SiteSettings) -> Service:
    """Return the site's own service; where it has accounts, with a key that is made here.

    The key is a new one with each start, of the role clinician, and in this process' memory
    alone; ``wardround site key list`` shows it as dicom-station. For a service with another
    database, a key can be given in ``keys/service-key``.

    Raises
    ------
    StoreError
        If the database failed.
    """
    scheme = "http" if settings.tls_certificate is None else "https"
    url = settings.dicom.service_url or f"{scheme}://{settings.host}:{settings.port}"
    return Service(url, settings.dicom.service_ca, key=_key(settings))


def _key(settings: SiteSettings) -> str | None:
    if settings.access == "open":
        return None
    given = settings.keys / "service-key"
    if given.exists():
        return given.read_text("utf-8").strip()
    engine = open_database(settings.database)
    try:
        keys = Keys(engine)
        with suppress(NotFound):
            keys.remove(KEY_NAME)
        return keys.add(KEY_NAME, {Role.clinician}, life=None)  # made anew at each start
    finally:
        engine.dispose()


def _service_away(error: Exception) -> ProcessError:
    return ProcessError(
        f"The inference service did not answer ({type(error).__name__}).",
        code="dicom-service-away",
    )
