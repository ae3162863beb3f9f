"""A real OpenID provider for tests: an own process, TLS, RSA keys, one person who signs in.

``python -m tests.server.accounts.openid_provider PORT FOLDER`` serves until it is ended. What it
does wrong on purpose stands in ``FOLDER/mischief.json``, read for each token.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import sys
import time
from pathlib import Path
from typing import Annotated
from urllib.parse import urlencode

import uvicorn
from fastapi import FastAPI, Form, Request
from fastapi.responses import JSONResponse, RedirectResponse
from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.responses import Response

CLIENT, SECRET = "wardround", "a secret & more: of the client"


def provider(issuer: str, folder: Path) -> FastAPI:
    app = FastAPI(openapi_url=None)
    keys = [RSAKey.generate_key(2048, {"kid": "first", "use": "sig", "alg": "RS256"})]
    codes: dict[str, dict[str, str]] = {}

    def mischief() -> dict[str, object]:
        try:
            found: dict[str, object] = json.loads((folder / "mischief.json").read_text())
        except FileNotFoundError:
            return {}
        return found

    @app.get("/.well-known/openid-configuration")
    def description() -> dict[str, str]:
        return {
            "issuer": str(mischief().get("calls_itself", issuer)),
            "authorization_endpoint": f"{issuer}/authorize",
            "token_endpoint": f"{issuer}/token",
            "jwks_uri": f"{issuer}/keys",
            "end_session_endpoint": f"{issuer}/end",
        }

    @app.get("/keys")
    def published() -> dict[str, list[object]]:
        if mischief().get("rotate") and keys[0].kid == "first":
            keys[0] = RSAKey.generate_key(2048, {"kid": "second", "use": "sig"})
        return {"keys": [key.as_dict(private=False) for key in keys]}

    @app.get("/authorize")
    def authorize(request: Request) -> Response:
        asked = dict(request.query_params)
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(16)
        codes[code] = asked
        answer = {"code": code, "state": asked["state"], "iss": mischief().get("iss", issuer)}
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode(answer)}", 303)

    @app.post("/token")
    def token(
        request: Request,
        code: Annotated[str, Form()],
        code_verifier: Annotated[str, Form()],
        redirect_uri: Annotated[str, Form()],
    ) -> JSONResponse:
        asked = codes.pop(code, None)
        digest = hashlib.sha256(code_verifier.encode()).digest()
        challenge = _coded(digest).decode()
        right = asked is not None and asked["code_challenge"] == challenge
        right = right and asked is not None and asked["redirect_uri"] == redirect_uri
        if not right or not _is_client(request.headers.get("authorization", "")):
            return JSONResponse({"error": "invalid_grant"}, 400)
        assert asked is not None
        if mischief().get("rotate"):
            published()
        return JSONResponse({"id_token": _id_token(asked, mischief()), "token_type": "Bearer"})

    def _id_token(asked: dict[str, str], wrong: dict[str, object]) -> str:
        now = int(time.time())
        claims: dict[str, object] = {
            **{"iss": issuer, "aud": CLIENT, "sub": "person-1", "nonce": asked["nonce"]},
            **{"iat": now, "exp": now + 300, "preferred_username": "Anna Ärztin"},
            "realm": {"groups": ["staff", "approvers"]},
            **wrong.get("claims", {}),  # type: ignore[dict-item]
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        algorithm = str(wrong.get("alg", "RS256"))
        header = {"alg": algorithm, "kid": keys[0].kid or ""}
        if algorithm != "RS256":  # signed with nothing, or with what everybody can fetch
            signed = b".".join(_coded(json.dumps(part).encode()) for part in (header, claims))
            known = keys[0].as_pem(private=False) if algorithm == "HS256" else None
            seal = hmac.digest(known, signed, "sha256") if known else b""
            return b".".join((signed, _coded(seal))).decode()
        stranger = (
            RSAKey.generate_key(2048, {"kid": keys[0].kid}) if wrong.get("stranger") else None
        )
        return jwt.encode(header, claims, stranger or keys[0], algorithms=["RS256"])

    return app


def _coded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _is_client(authorization: str) -> bool:
    from urllib.parse import unquote_plus

    kind, _, coded = authorization.partition(" ")
    name, _, secret = base64.b64decode(coded).decode().partition(":")
    return kind == "Basic" and (unquote_plus(name), unquote_plus(secret)) == (CLIENT, SECRET)


if __name__ == "__main__":
    port, home = int(sys.argv[1]), Path(sys.argv[2])
    uvicorn.run(
        provider(f"https://localhost:{port}", home),
        **{"host": "127.0.0.1", "port": port, "log_level": "warning"},
        **{"ssl_keyfile": home / "provider.key", "ssl_certfile": home / "provider.crt"},
    )
