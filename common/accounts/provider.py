"""Signing in at an OpenID Connect provider: authorization code flow with PKCE.

What is checked follows OpenID Connect Core 1.0, 3.1.3.7, and RFC 9700: the ID token's signature
by an asymmetric algorithm and one of the provider's published keys, issuer, audience, expiry,
time of issue, nonce, and that the code belongs to this browser, by state and code verifier
(PKCE, RFC 7636). An answer that names its issuer (RFC 9207) must name this one.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Mapping
from pathlib import Path

import httpx
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError

from common.accounts.identity import SignInRefused
from common.accounts.pending import Pending
from common.accounts.provider_connection import ProviderConnection, ProviderUnavailable
from common.accounts.provider_settings import OpenIdSettings

logger = logging.getLogger(__name__)

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
"""Asymmetric ones alone: with ``HS256`` a public key would do as the secret, ``none`` has none."""
LEEWAY_SECONDS = 60


class IdentityProvider:
    """One provider, as `common.accounts.provider_settings` describes it."""

    def __init__(self, settings: OpenIdSettings, *, folder: Path) -> None:
        self.settings = settings
        self._connection = ProviderConnection(settings, folder=folder)

    def address(self, pending: Pending) -> str:
        """Return the provider's address to which a browser is sent to sign in."""
        return str(
            prepare_grant_uri(
                self._connection.description().authorization_endpoint,
                client_id=self.settings.client_id,
                response_type="code",
                redirect_uri=self.settings.redirect_uri,
                scope=" ".join(self.settings.scopes),
                state=pending.state,
                nonce=pending.nonce,
                code_challenge=create_s256_code_challenge(pending.verifier),
                code_challenge_method="S256",
            )
        )

    def sign_out_address(self) -> str | None:
        """Return where the session at the provider can be ended, if it says where."""
        try:
            endpoint = self._connection.description().end_session_endpoint
        except ProviderUnavailable:
            return None
        if endpoint is None or not endpoint.startswith("https://"):
            return None
        return str(httpx.URL(endpoint).copy_add_param("client_id", self.settings.client_id))

    def claims(self, pending: Pending, *, code: str, issuer: str | None) -> Mapping[str, object]:
        """Exchange a code for an ID token and return its claims, all checks passed.

        Parameters
        ----------
        pending : Pending
            The sign-in that this browser began; its state has been compared.
        code : str
            From the provider's answer.
        issuer : str, optional
            The answer's ``iss``, where the provider sends one (RFC 9207).

        Raises
        ------
        SignInRefused
            With code ``provider-issuer``, ``provider-code`` or ``provider-token``.
        ProviderUnavailable
            If it cannot be asked.
        """
        if issuer is not None and issuer != self.settings.issuer:
            raise SignInRefused(
                "The answer came from another identity provider.", code="provider-issuer"
            )
        answer = self._exchange(code, pending.verifier)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise ProviderUnavailable("The identity provider sent no ID token.")
        access = answer.get("access_token")
        return self._verified(token, pending.nonce, access if isinstance(access, str) else None)

    def _exchange(self, code: str, verifier: str) -> Mapping[str, object]:
        status, answer = self._connection.exchange(
            {
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": self.settings.redirect_uri,
                "code_verifier": verifier,
            }
        )
        if status == 200:
            return answer
        logger.warning("provider-code-refused status=%d", status)
        if 400 <= status < 500:
            raise SignInRefused(
                "The identity provider does not accept this sign-in.",
                meaning="The code was used before, is too old, or the client's secret is wrong.",
                action="Sign in again; if it stays so, check client_id and client_secret_file.",
                code="provider-code",
            )
        raise ProviderUnavailable(f"The identity provider answered with status {status}.")

    def _verified(self, token: str, nonce: str, access: str | None) -> Mapping[str, object]:
        try:
            found = self._decoded(token)
            claims = CodeIDToken(
                found.claims,
                found.header,
                options={
                    "iss": {"essential": True, "value": self.settings.issuer},
                    "aud": {"essential": True, "value": self.settings.client_id},
                    "sub": {"essential": True},
                    "exp": {"essential": True},
                    "iat": {"essential": True},
                    "nonce": {"essential": True, "value": nonce},
                },
                params={
                    "client_id": self.settings.client_id,
                    "nonce": nonce,
                    "access_token": access,
                },
            )
            claims.validate(leeway=LEEWAY_SECONDS)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            logger.warning("provider-token-refused reason=%s", _reason(error))
            raise SignInRefused(
                f"The identity provider's token is not accepted ({_reason(error)}).",
                meaning="It is not signed by that provider, not for this page, or not of now.",
                action="Sign in again; if it stays so, check issuer and client_id, and the clocks.",
                code="provider-token",
            ) from error
        return dict(claims)

    def _decoded(self, token: str) -> jwt.Token:
        try:
            return jwt.decode(token, self._connection.keys(fresh=False), algorithms=ALGORITHMS)
        except (JoseError, ValueError):
            # The provider may have changed its keys since they were fetched.
            return jwt.decode(token, self._connection.keys(fresh=True), algorithms=ALGORITHMS)


def same_state(pending: Pending, state: str) -> bool:
    """Tell whether an answer belongs to a sign-in that was begun, in constant time."""
    return hmac.compare_digest(pending.state.encode(), state.encode("utf-8", "surrogatepass"))


def _reason(error: Exception) -> str:
    # Never the error's text: it may quote what stands in the token.
    claim = getattr(error, "claim", None)
    kind = getattr(error, "error", None) or type(error).__name__
    return f"{kind}, {claim}" if isinstance(claim, str) else str(kind)
