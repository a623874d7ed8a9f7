"""A development issuer of logins: whoever asks gets signed in. It lives here and nowhere else.

Billing trusts it only because `make run` says so; its issuer name is no address, so that the same
person stays the same from run to run, whatever port is free.
"""

import base64
import hashlib
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

ISSUER = "https://issuer.darkbloom.invalid"
AUDIENCE = "darkbloom-local"
ALGORITHM = "ES256"
DEVELOPER = "dev@darkbloom.invalid"
ADMINISTRATOR = "admin@darkbloom.invalid"
LIFE_S = 3600


class DevelopmentIssuer:
    """Signs logins with a key of this state directory.

    Args:
        key_file: PEM of the key, mode 0600, made on first use.
    """

    def __init__(self, key_file: Path) -> None:
        self._key = _load(key_file)
        public = self._key.public_key().public_numbers()
        x, y = (_text(value.to_bytes(32, "big")) for value in (public.x, public.y))
        self.key_id = hashlib.sha256(f"{x}.{y}".encode()).hexdigest()[:16]
        self._jwk = {
            "kty": "EC",
            "crv": "P-256",
            "x": x,
            "y": y,
            "kid": self.key_id,
            "alg": ALGORITHM,
            "use": "sig",
        }

    @property
    def jwks(self) -> Mapping[str, Any]:
        """The public key, as issuers publish theirs."""
        return {"keys": [self._jwk]}

    def token(self, email: str = DEVELOPER, *, nonce: str = "", now: datetime | None = None) -> str:
        """Return a login token of that person, good for an hour.

        Args:
            email: who signs in.
            nonce: of the page that asked; comes back in the token.
            now: the present; None asks the clock.
        """
        at = int((now or datetime.now(UTC)).timestamp())  # noqa: TID251 - a tool of one moment
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": hashlib.sha256(email.lower().encode()).hexdigest()[:32],
            "email": email,
            "email_verified": True,
            "name": email.partition("@")[0],
            "iat": at,
            "exp": at + LIFE_S,
            **({"nonce": nonce} if nonce else {}),
        }
        return jwt.encode(claims, self._key, ALGORITHM, headers={"kid": self.key_id})


def trust(port: int) -> list[dict[str, Any]]:
    """Return what billing is told about this issuer."""
    return [
        {
            "issuer": ISSUER,
            "audience": AUDIENCE,
            "jwks_url": f"http://127.0.0.1:{port}/jwks.json",
            "algorithms": [ALGORITHM],
        }
    ]


def _load(path: Path) -> ec.EllipticCurvePrivateKey:
    if not path.exists():
        made = ec.generate_private_key(ec.SECP256R1())
        pem = made.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("issuer key is not an elliptic-curve key")
    return key


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
