"""The table ``[accounts]`` of ``site.toml``: sessions, limits, and an identity provider."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from client.access.roles import Role
from common.accounts.provider_settings import OpenIdSettings, Text

Seconds = Annotated[int, Field(ge=60, le=30 * 86_400)]


class RoleValues(BaseModel):
    """The values of the role claim that make somebody a clinician, hospital IT, an auditor."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clinician: tuple[Text, ...] = ()
    it: tuple[Text, ...] = ()
    auditor: tuple[Text, ...] = ()

    @model_validator(mode="after")
    def _somebody(self) -> RoleValues:
        if not (self.clinician or self.it or self.auditor):
            raise ValueError("name at least one value of the role claim for one of the roles")
        return self

    def given(self, values: frozenset[str]) -> frozenset[Role]:
        """Return every role that one of the values gives."""
        listed = {
            Role.clinician: self.clinician,
            Role.it: self.it,
            Role.auditor: self.auditor,
        }
        return frozenset(role for role, wanted in listed.items() if values & set(wanted))


class ProviderSettings(OpenIdSettings):
    """An OpenID Connect provider, and the values of its role claim that count."""

    roles: RoleValues


class AccountSettings(BaseModel):
    """How people and programs are let in, where ``access`` is ``accounts``.

    A session ends ``session_idle_seconds`` after its last request and ``session_seconds`` after
    its beginning. Each caller may ask ``requests_per_minute`` times on average, ``burst`` times at
    once, and hold ``requests_at_once`` requests open. ``local_users`` False leaves the provider as
    the only way for people; programs' keys stay. ``metrics_on_loopback`` lets whoever is on this
    machine read ``/metrics`` without a key: not behind a proxy, to which everybody is local.
    ``proxies`` are the addresses or networks of a proxy before the service, whose
    ``X-Forwarded-For`` is believed: without, all who come through it are counted as one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    session_idle_seconds: Seconds = 1800
    session_seconds: Seconds = 12 * 3600
    requests_per_minute: Annotated[int, Field(ge=1)] = 1200
    burst: Annotated[int, Field(ge=1)] = 120
    requests_at_once: Annotated[int, Field(ge=1)] = 16
    local_users: bool = True
    metrics_on_loopback: bool = False
    proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    provider: ProviderSettings | None = None

    @model_validator(mode="after")
    def _somebody_can_sign_in(self) -> AccountSettings:
        if not self.local_users and self.provider is None:
            raise ValueError("local_users = false needs a table [accounts.provider]")
        return self
