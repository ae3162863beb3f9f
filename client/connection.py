"""How a site reaches its coordinator: outbound only, one CA, the site's certificate, a proxy.

Both connections of a site are made here: Flower's SuperNode (`client.runner.flower`) and the
release fetcher (`client.releases.fetcher`).
"""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx

from client.settings import SiteSettings
from common.errors import ConfigurationError


@dataclass(frozen=True)
class Connection:
    """What a site trusts and shows when it connects out.

    Attributes
    ----------
    ca : Path
        PEM file of the federation's CA, the only one that is trusted.
    certificate, key : Path or None
        The site's own certificate and key (PEM), which the gateway asks for.
    proxy : str or None
        HTTP proxy; the connection through it is TLS to the coordinator itself (RFC 9110,
        section 9.3.6, CONNECT), so the proxy sees host, port and sizes. Without one, the
        environment is asked (``HTTPS_PROXY``, ``NO_PROXY``), though never for loopback.
    """

    ca: Path
    certificate: Path | None = None
    key: Path | None = None
    proxy: str | None = None

    @classmethod
    def of(cls, settings: SiteSettings) -> Self:
        """Return a site's connection; a kit from before certificates has none to show."""
        certificate, key = settings.keys / "site.crt", settings.keys / "site.key"
        has_certificate = certificate.exists() or key.exists()
        return cls(
            ca=settings.trust / "ca.crt",
            certificate=certificate if has_certificate else None,
            key=key if has_certificate else None,
            proxy=settings.proxy,
        )

    def tls(self) -> ssl.SSLContext:
        """Return a client context: TLS 1.2 or newer.

        Raises
        ------
        ConfigurationError
            If the CA cannot be read, or the certificate does not go with its key.
        """
        try:
            context = ssl.create_default_context(cafile=str(self.ca))
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(
                f"The federation's CA certificate {self.ca} cannot be read"
                f" ({type(error).__name__}).",
                action="Copy it again from the start-up kit.",
            ) from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.certificate is not None:
            try:
                context.load_cert_chain(self.certificate, self.key)
            except (OSError, ssl.SSLError) as error:
                raise ConfigurationError(
                    f"The site's certificate {self.certificate} and its key cannot be used"
                    f" ({type(error).__name__}).",
                    meaning="The coordinator's gateway would refuse this site.",
                    action="Copy both again from the coordinator's `wardround pki renew`.",
                    code="site-certificate",
                ) from error
        return context

    def client(self, host: str, *, timeout: float, headers: dict[str, str]) -> httpx.Client:
        """Return an HTTP client for the coordinator at ``host``; redirects are refused."""
        return httpx.Client(
            verify=self.tls(),
            proxy=self.proxy,
            trust_env=self.proxy is None and not is_loopback(host),
            follow_redirects=False,
            timeout=timeout,
            headers=headers,
        )


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address is this very machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
