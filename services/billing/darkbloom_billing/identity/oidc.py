"""Login tokens: what is checked, in which order. Pure; keys and time are handed in.

The algorithm is never the token's choice: it must be pinned for the issuer and be the one of the
key that the token names, so that neither `none` nor an HMAC with a public key has a chance.
"""

import base64
import binascii
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import jwt
from jwt.exceptions import PyJWTError

from darkbloom_billing.identity.errors import LoginInvalidError
from darkbloom_billing.identity.model import Claims, Issuer

ALGORITHMS = frozenset({"ES256", "RS256", "EdDSA"})
MAX_TOKEN_BYTES = 8192
MAX_KEYS = 64
"""Keys of one issuer that are looked at."""
SKEW_S = 60
"""Seconds by which an issuer's clock may differ from ours."""
MAX_LIFE_S = 7 * 86_400
"""Longest life of a login token from its issue, where it says when that was."""
_MIN_RSA_BITS = 2048
_TEXT_MAX = 200
_ID_MAX = 255
_ACCEPTED_TYPES = frozenset({"", "jwt", "at+jwt"})
_KEY_ALGORITHMS = {("EC", "P-256"): "ES256", ("RSA", None): "RS256", ("OKP", "Ed25519"): "EdDSA"}
_UNCHECKED: dict[str, Any] = {
    # Times are checked here, against our clock.
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_sub": True,
    "verify_jti": False,
    "require": ["exp", "iss", "sub", "aud"],
}


@dataclass(frozen=True, slots=True)
class TokenHead:
    """What an unverified token says about who could verify it."""

    issuer: str
    algorithm: str
    key_id: str


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A public key of an issuer, and the one algorithm that it is for."""

    key_id: str
    algorithm: str
    jwk: jwt.PyJWK


def read_head(token: str) -> TokenHead:
    """Read which issuer and key a token names; nothing of it is believed.

    Raises:
        LoginInvalidError: It is no compact JWT, or wants what we do not do.
    """
    parts = token.split(".")
    if len(token) > MAX_TOKEN_BYTES or len(parts) != 3 or not all(parts):  # noqa: PLR2004 - JWS
        raise LoginInvalidError("not a login token")
    head, body = _object(parts[0]), _object(parts[1])
    kind, algorithm, key_id = head.get("typ", ""), head.get("alg"), head.get("kid", "")
    issuer = body.get("iss")
    if not isinstance(kind, str) or kind.lower() not in _ACCEPTED_TYPES:
        raise LoginInvalidError("not a login token")
    # An extension that must be understood is not; a key or a URL in the token is an attack.
    if any(name in head for name in ("crit", "jwk", "jku", "x5u", "x5c", "b64")):
        raise LoginInvalidError("login token has a header that is not accepted")
    if (
        not isinstance(algorithm, str)
        or not isinstance(key_id, str)
        or not isinstance(issuer, str)
        or len(key_id) > _ID_MAX
        or algorithm not in ALGORITHMS
    ):
        raise LoginInvalidError("login token has a header that is not accepted")
    return TokenHead(issuer, algorithm, key_id)


def read_keys(document: bytes) -> dict[str, VerifyingKey]:
    """Read a JWK set; keys that are not for us (kind, use, size) are left out.

    Raises:
        ValueError: It is no JWK set.
    """
    try:
        listed = json.loads(document)["keys"]
    except (KeyError, TypeError, RecursionError, json.JSONDecodeError, UnicodeDecodeError):
        raise ValueError("not a jwk set") from None
    if not isinstance(listed, list):
        raise ValueError("not a jwk set")  # noqa: TRY004 - one error for all that is wrong
    found = (_key(item) for item in listed[:MAX_KEYS] if isinstance(item, dict))
    return {key.key_id: key for key in found if key is not None}


def choose_key(keys: Mapping[str, VerifyingKey], head: TokenHead) -> VerifyingKey | None:
    """Return the key that a token names; one without a name is meant where there is one only."""
    if head.key_id:
        return keys.get(head.key_id)
    return next(iter(keys.values())) if len(keys) == 1 else None


def verify(token: str, key: VerifyingKey, issuer: Issuer, *, now: datetime) -> Claims:
    """Return what a token says, once everything about it is right.

    Raises:
        LoginInvalidError: Something is not.
    """
    if key.algorithm not in issuer.algorithms:
        raise LoginInvalidError("login token is signed in a way that is not accepted")
    try:
        body = jwt.decode(
            token,
            key.jwk,
            algorithms=[key.algorithm],
            audience=issuer.audience,
            issuer=issuer.issuer,
            options=_UNCHECKED,  # type: ignore[arg-type]
        )
    except (PyJWTError, ValueError, TypeError, RecursionError):
        raise LoginInvalidError("login token is not valid") from None
    at = now.timestamp()
    expires, begins, issued = (_number(body, name) for name in ("exp", "nbf", "iat"))
    if expires is None or at >= expires + SKEW_S:
        raise LoginInvalidError("login token has expired")
    if any(begin is not None and begin > at + SKEW_S for begin in (begins, issued)):
        raise LoginInvalidError("login token is not valid yet")
    if issued is not None and expires - issued > MAX_LIFE_S:
        raise LoginInvalidError("login token lives too long")
    subject = body["sub"]
    if not subject or len(subject) > _ID_MAX or not subject.isprintable():
        raise LoginInvalidError("login token has no usable subject")
    email = _text(body, "email")
    return Claims(
        issuer=issuer.issuer,
        subject=subject,
        email=email.lower(),
        email_verified=bool(email) and body.get("email_verified") is True,
        name=_text(body, "name"),
        expires_at=datetime.fromtimestamp(min(expires, at + MAX_LIFE_S), UTC),
    )


def is_listed(claims: Claims, emails: Iterable[str]) -> bool:
    """Whether the issuer vouches for an e-mail of the list."""
    return claims.email_verified and claims.email in {email.lower() for email in emails}


def _key(item: Mapping[str, Any]) -> VerifyingKey | None:
    algorithm = _KEY_ALGORITHMS.get((str(item.get("kty")), item.get("crv")))
    key_id = item.get("kid", "")
    if (
        algorithm is None
        or item.get("alg", algorithm) != algorithm
        or item.get("use", "sig") != "sig"
        or not isinstance(key_id, str)
        or len(key_id) > _ID_MAX
        or "d" in item
    ):
        return None
    try:
        jwk = jwt.PyJWK.from_dict(dict(item), algorithm)
    except (PyJWTError, ValueError, TypeError):
        return None
    if algorithm == "RS256" and jwk.key.key_size < _MIN_RSA_BITS:
        return None
    return VerifyingKey(key_id, algorithm, jwk)


def _object(part: str) -> dict[str, Any]:
    try:
        padded = part + "=" * (-len(part) % 4)
        found = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        raise LoginInvalidError("not a login token") from None
    if not isinstance(found, dict):
        raise LoginInvalidError("not a login token")
    return found


def _number(body: Mapping[str, Any], name: str) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise LoginInvalidError("login token has a time that is none")
    return float(min(max(value, 0), 1 << 40))


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name, "")
    if not isinstance(value, str) or len(value) > _TEXT_MAX or not value.isprintable():
        return ""
    return value
