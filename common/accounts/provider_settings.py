"""An OpenID Connect provider (Keycloak, Entra ID, authentik …) as a settings table describes it.

Each side adds ``roles``: which values of a claim make somebody what.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

CALLBACK_PATH = "/sign-in/callback"
Text = Annotated[str, Field(min_length=1, max_length=255)]


class OpenIdSettings(BaseModel):
    """An OpenID Connect provider, as one of our services knows it.

    ``issuer`` is compared letter by letter with what the provider says of itself and with every
    token. ``redirect_uri`` is this page's own address as browsers call it, ending in
    ``/sign-in/callback``, and is registered at the provider. ``client_secret_file`` is relative
    to the service's folder; without it the client is a public one, and PKCE alone (RFC 7636)
    binds the code. ``client_auth`` is how the secret is sent: ``client_secret_basic`` or
    ``client_secret_post``. ``role_claim`` and ``name_claim`` may lead into objects, with dots
    (``realm_access.roles``). ``ca_file`` replaces the system's certificate authorities.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: str
    client_id: Text
    redirect_uri: str
    label: Annotated[str, Field(min_length=1, max_length=60)] = "single sign-on"
    client_secret_file: Path | None = None
    client_auth: Literal["basic", "post"] = "basic"
    role_claim: Text = "roles"
    name_claim: Text = "preferred_username"
    scopes: tuple[Text, ...] = ("openid", "profile")
    ca_file: Path | None = None

    @field_validator("issuer", "redirect_uri")
    @classmethod
    def _over_tls(cls, address: str) -> str:
        parts = urlsplit(address)
        if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("this must be an https address without ? and #")
        return address

    @field_validator("redirect_uri")
    @classmethod
    def _ours(cls, address: str) -> str:
        if urlsplit(address).path != CALLBACK_PATH:
            raise ValueError(f"the path of this address must be {CALLBACK_PATH}")
        return address

    @field_validator("scopes")
    @classmethod
    def _with_openid(cls, scopes: tuple[str, ...]) -> tuple[str, ...]:
        return scopes if "openid" in scopes else ("openid", *scopes)


def claim_values(claims: Mapping[str, object], path: str) -> frozenset[str]:
    """Return the texts of a claim, which is a text or a list of them; empty where it is absent.

    Parameters
    ----------
    claims : mapping
        Of an ID token.
    path : str
        A claim's name; where there is none of that name, dots lead into objects.
    """
    found: object = claims.get(path)
    if found is None:
        found = claims
        for step in path.split("."):
            found = found.get(step) if isinstance(found, Mapping) else None
    return frozenset(_texts(found))


def _texts(found: object) -> Iterator[str]:
    # Neither numbers nor truth values become texts: a claim of another form gives no role.
    if isinstance(found, str):
        yield found
    elif isinstance(found, list):
        yield from (item for item in found if isinstance(item, str))
