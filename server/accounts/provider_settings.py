"""The table ``[provider]`` of ``coordinator.toml``: who else may say who somebody is.

An OpenID Connect provider (Keycloak, Entra ID, authentik …) signs people in; one of the claims of
its ID token says what they may do here. Whoever has none of the listed values does not get in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from server.accounts.records import ROLES, Role

CALLBACK_PATH = "/sign-in/callback"
Text = Annotated[str, Field(min_length=1, max_length=255)]


class RoleValues(BaseModel):
    """The values of the role claim that make somebody a viewer, an operator, an approver."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    viewer: tuple[Text, ...] = ()
    operator: tuple[Text, ...] = ()
    approver: tuple[Text, ...] = ()

    @model_validator(mode="after")
    def _somebody(self) -> RoleValues:
        if not (self.viewer or self.operator or self.approver):
            raise ValueError("name at least one value of the role claim for one of the roles")
        return self

    def role(self, values: frozenset[str]) -> Role | None:
        """Return the highest role that any of the values gives, None if none gives any."""
        listed: Mapping[Role, tuple[str, ...]] = {
            "viewer": self.viewer,
            "operator": self.operator,
            "approver": self.approver,
        }
        return next((role for role in reversed(ROLES) if values & set(listed[role])), None)


class ProviderSettings(BaseModel):
    """An OpenID Connect provider, as the coordinator knows it.

    ``issuer`` is compared letter by letter with what the provider says of itself and with every
    token. ``redirect_uri`` is this page's own address as browsers call it, ending in
    ``/sign-in/callback``, and is registered at the provider. ``client_secret_file`` is relative
    to the coordinator's folder; without it the client is a public one, and PKCE alone (RFC 7636)
    binds the code. ``client_auth`` is how the secret is sent: ``client_secret_basic`` or
    ``client_secret_post``. ``role_claim`` and ``name_claim`` may lead into objects, with dots
    (``realm_access.roles``). ``ca_file`` replaces the system's certificate authorities.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: str
    client_id: Text
    redirect_uri: str
    roles: RoleValues
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
