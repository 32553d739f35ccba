"""Bearer tokens: issued to the managed identity, checked on every call."""

from __future__ import annotations

import base64
import hmac
import secrets
from collections.abc import Mapping
from pathlib import Path

import jwt

from .errors import Unauthorized
from .settings import TENANT_ID

LIFETIME_SECONDS = 3600
ML_AUDIENCE = "https://ml.azure.localhost"
# The same in every cloud: azure-storage-blob asks for no other.
STORAGE_AUDIENCE = "https://storage.azure.com"


class Tokens:
    """Issues and checks tokens, signed with a secret of this state folder.

    Args:
        folder: Where the two secrets are kept, each mode 0600.
    """

    def __init__(self, folder: Path) -> None:
        self._signing = _secret(folder / "signing.key")
        self.identity_header = _secret(folder / "identity.key")

    def issue(self, audience: str, *, now: float, lifetime: float = LIFETIME_SECONDS) -> str:
        """Return a JWT for *audience*, valid from *now* for *lifetime* seconds."""
        claims = {
            "aud": audience,
            "iss": f"https://sts.windows.net/{TENANT_ID}/",
            "tid": TENANT_ID,
            "oid": "00000000-0000-4000-8000-0000000000bb",
            "iat": int(now),
            "nbf": int(now),
            "exp": int(now + lifetime),
        }
        return jwt.encode(claims, self._signing, algorithm="HS256")

    def signature(self, text: str) -> str:
        """Return the signature of *text* that a shared access signature carries, in base64."""
        digest = hmac.digest(self._signing.encode(), text.encode(), "sha256")
        return base64.b64encode(digest).decode()

    def check(self, headers: Mapping[str, str], *, audiences: set[str], now: float) -> None:
        """Check the ``Authorization`` header.

        Raises:
            Unauthorized: No token, not one of ours, expired, or for another audience.
        """
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthorized(
                "Authentication failed. The 'Authorization' header is missing.",
                code="AuthenticationFailed",
            )
        try:
            # The times and the audience are checked below, by the emulator's clock.
            claims = jwt.decode(
                token,
                self._signing,
                algorithms=["HS256"],
                options={
                    "verify_aud": False,
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except jwt.InvalidTokenError as error:
            raise Unauthorized(f"The access token is invalid: {error}.") from error
        if claims["exp"] <= now:
            raise Unauthorized("The access token has expired.", code="ExpiredAuthenticationToken")
        if claims["aud"].rstrip("/") not in audiences:
            raise Unauthorized(
                f"The access token has been obtained for wrong audience '{claims['aud']}'.",
                code="InvalidAuthenticationTokenAudience",
            )


def _secret(path: Path) -> str:
    if not path.exists():
        # Whole or not at all: a kill must leave no empty secret behind.
        part = path.with_suffix(".part")
        part.unlink(missing_ok=True)
        part.touch(mode=0o600)
        part.write_text(secrets.token_urlsafe(32), encoding="utf-8")
        part.replace(path)
    return path.read_text(encoding="utf-8")
