"""Whom the service may be reached by: this machine alone, unless hospital IT says otherwise."""

from __future__ import annotations

from client.api.middleware import is_loopback
from client.settings import SiteSettings
from common.errors import ConfigurationError


def check_exposure(settings: SiteSettings) -> None:
    """Refuse to serve beyond this machine without TLS, or without being told to.

    Raises
    ------
    ConfigurationError
        With code ``exposed-without-tls`` or ``open-beyond-loopback``, or if only one half of the
        TLS pair is set.
    """
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        raise ConfigurationError("tls_certificate and tls_key go together; one is missing.")
    if is_loopback(settings.host):
        return
    if settings.access == "open":
        raise ConfigurationError(
            f"The inference service will not bind to {settings.host} with open access.",
            meaning="Whoever reaches the port could read and store cases.",
            action='Set access = "accounts" in site.toml, and make a user or a key.',
            code="open-beyond-loopback",
        )
    if settings.tls_certificate is None and not settings.allow_plain_http:
        raise ConfigurationError(
            f"The inference service will not bind to {settings.host} without TLS.",
            meaning="Patients' images would cross the network in the clear.",
            action="Set tls_certificate and tls_key in site.toml, put a TLS proxy in front of "
            "127.0.0.1, or set allow_plain_http if the network itself is trusted.",
            code="exposed-without-tls",
        )
