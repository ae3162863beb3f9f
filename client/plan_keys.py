"""The coordinator keys whose plans this site believes."""

from __future__ import annotations

from client.settings import SiteSettings
from common.signing import VerifyKey


def read_plan_keys(settings: SiteSettings) -> list[VerifyKey]:
    """Return the public keys in ``trust/plan-keys``: more than one while a key is rotated.

    Raises
    ------
    ConfigurationError
        If a file in it is no Ed25519 public key.
    """
    return [VerifyKey.read(p) for p in sorted((settings.trust / "plan-keys").glob("*.pem"))]
