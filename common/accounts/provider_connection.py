"""Asking an OpenID Connect provider: its description, its keys, and a code for a token.

The description is OpenID Connect Discovery 1.0, 4.3; the client proves itself as RFC 6749, 2.3.1
says. Everything goes over TLS, no redirect is followed, and answers have a longest length.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote_plus

import httpx
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from pydantic import BaseModel, ConfigDict, ValidationError

from common.accounts.provider_settings import OpenIdSettings
from common.errors import Busy, ConfigurationError, WardroundError
from common.folders import refuse_readable_by_others

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10.0
MOST_BYTES = 262_144
DESCRIPTION_SECONDS = 3600.0
KEYS_AT_MOST_EVERY_SECONDS = 10.0
MOST_AT_ONCE = 8  # a provider that hangs must not hold every thread of the service


class ProviderUnavailable(WardroundError):
    """The provider cannot be asked, or does not answer as OpenID Connect wants it."""

    default_code = "provider-unavailable"


class Description(BaseModel):
    """What a provider says of itself, as far as it is used here."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    end_session_endpoint: str | None = None


@dataclass
class _Known:
    """What was fetched, and when."""

    description: Description | None = None
    described_at: float = 0.0
    keys: KeySet | None = None
    keys_at: float = float("-inf")


class ProviderConnection:
    """Asks one provider, and keeps what it said for a while; ``clock`` returns seconds."""

    def __init__(
        self,
        settings: OpenIdSettings,
        *,
        folder: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._secret = _secret(settings, folder)
        self._tls = _tls(settings, folder)
        self._clock = clock
        self._lock = threading.Lock()
        self._turns = threading.BoundedSemaphore(MOST_AT_ONCE)
        self._known = _Known()

    def description(self) -> Description:
        """Return where the provider's endpoints are.

        Raises
        ------
        ProviderUnavailable
            Also if it is another issuer's, or an endpoint is without TLS.
        """
        with self._lock:
            known, age = self._known.description, self._clock() - self._known.described_at
            if known is not None and age < DESCRIPTION_SECONDS:
                return known
        where = f"{self._settings.issuer.rstrip('/')}/.well-known/openid-configuration"
        status, answer = self._ask("GET", where)
        try:
            found = Description.model_validate(answer)
        except ValidationError as error:
            raise ProviderUnavailable(
                f"The identity provider's description cannot be used (status {status}).",
                action="Check `issuer` in the settings: the address before /.well-known.",
            ) from error
        _check_description(found, self._settings.issuer)
        with self._lock:
            self._known.description, self._known.described_at = found, self._clock()
        return found

    def keys(self, *, fresh: bool) -> KeySet:
        """Return the provider's public keys; ``fresh`` asks again, though not all the time."""
        uri = self.description().jwks_uri
        with self._lock:
            known, age = self._known.keys, self._clock() - self._known.keys_at
            if known is not None and (not fresh or age < KEYS_AT_MOST_EVERY_SECONDS):
                return known
        keys = _key_set(*self._ask("GET", uri))
        with self._lock:
            self._known.keys, self._known.keys_at = keys, self._clock()
        return keys

    def exchange(self, form: Mapping[str, str]) -> tuple[int, Mapping[str, object]]:
        """Send a form to the token endpoint, as this client; returns status and answer."""
        fields, auth = dict(form), None
        if self._secret is not None and self._settings.client_auth == "basic":
            auth = httpx.BasicAuth(quote_plus(self._settings.client_id), quote_plus(self._secret))
        else:
            fields["client_id"] = self._settings.client_id
            fields |= {} if self._secret is None else {"client_secret": self._secret}
        return self._ask("POST", self.description().token_endpoint, form=fields, auth=auth)

    def _ask(
        self,
        method: str,
        address: str,
        *,
        form: Mapping[str, str] | None = None,
        auth: httpx.BasicAuth | None = None,
    ) -> tuple[int, Mapping[str, object]]:
        if not self._turns.acquire(blocking=False):
            raise Busy("Too many people sign in at once.", action="Try again in a few seconds.")
        try:
            with (
                httpx.Client(verify=self._tls, timeout=TIMEOUT_SECONDS) as client,
                client.stream(
                    method, address, data=form, auth=auth, headers={"Accept": "application/json"}
                ) as answer,
            ):
                body = _body(answer)
                found = httpx.Response(200, content=body).json() if answer.is_success else {}
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError) as error:
            logger.warning("provider-unavailable reason=%s", type(error).__name__)
            raise ProviderUnavailable(
                f"The identity provider cannot be asked ({type(error).__name__}).",
                meaning="Nobody can sign in through it just now.",
                action="Try again; if it stays so, look at its address, certificate and proxy.",
            ) from error
        finally:
            self._turns.release()
        return answer.status_code, found if isinstance(found, dict) else {}


def _body(answer: httpx.Response) -> bytes:
    body = bytearray()
    for part in answer.iter_bytes():
        body += part
        if len(body) > MOST_BYTES:
            raise ProviderUnavailable("The identity provider's answer is too long.")
    return bytes(body)


def _key_set(status: int, answer: Mapping[str, object]) -> KeySet:
    listed = answer.get("keys")
    usable = [
        key
        for key in (listed if isinstance(listed, list) else [])
        if isinstance(key, dict)
        and key.get("kty") in {"RSA", "EC", "OKP"}
        and key.get("use", "sig") == "sig"
    ]
    if status != 200 or not usable:
        raise ProviderUnavailable("The identity provider's keys cannot be fetched.")
    try:
        return KeySet.import_key_set({"keys": usable})
    except (JoseError, ValueError, KeyError) as error:
        raise ProviderUnavailable("The identity provider's keys cannot be read.") from error


def _check_description(found: Description, issuer: str) -> None:
    """Refuse a description of somebody else, and endpoints without TLS."""
    if found.issuer != issuer:
        raise ProviderUnavailable(
            "The identity provider calls itself otherwise than `issuer` in the settings.",
            meaning="Its tokens would not be accepted.",
            action="Write the issuer exactly as its description says, the last slash included.",
            code="provider-issuer",
        )
    for endpoint in (found.authorization_endpoint, found.token_endpoint, found.jwks_uri):
        if not endpoint.startswith("https://"):
            raise ProviderUnavailable("An endpoint of the identity provider is without TLS.")


def _secret(settings: OpenIdSettings, folder: Path) -> str | None:
    if settings.client_secret_file is None:
        return None
    path = folder / settings.client_secret_file
    try:
        refuse_readable_by_others(path)
        secret = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"The identity provider's client secret, {path}, cannot be read.",
            action="Write the secret into that file, readable by this service's user alone.",
            code="client-secret-missing",
        ) from error
    if not secret:
        raise ConfigurationError(
            f"{path} is empty.",
            action="Write the client secret into it.",
            code="client-secret-missing",
        )
    return secret


def _tls(settings: OpenIdSettings, folder: Path) -> ssl.SSLContext:
    path = None if settings.ca_file is None else folder / settings.ca_file
    try:
        return ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"The certificate authority {path} of the identity provider cannot be read.",
            action="Give `ca_file` a PEM file with its certificate authority.",
            code="provider-ca",
        ) from error
