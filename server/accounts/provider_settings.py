"""The table ``[provider]`` of ``coordinator.toml``: who else may say who somebody is.

An OpenID Connect provider (Keycloak, Entra ID, authentik …) signs people in; one of the claims of
its ID token says what they may do here. Whoever has none of the listed values does not get in.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, model_validator

from common.accounts.provider_settings import OpenIdSettings, Text
from server.accounts.records import ROLES, Role


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


class ProviderSettings(OpenIdSettings):
    """An OpenID Connect provider, and the values of its role claim that count."""

    roles: RoleValues
