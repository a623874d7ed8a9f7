"""Stripe's webhook signature: HMAC-SHA256 over `t.body`, in constant time."""

import hashlib
import hmac
from collections.abc import Iterable
from datetime import datetime

from darkbloom_mesh.config import Secret

TOLERANCE_S = 300
MAX_HEADER = 4096
_SCHEME = "v1"


def verify(payload: bytes, header: str, secrets: Iterable[Secret], now: datetime) -> bool:
    """Say whether any of the secrets signed this body within the tolerance.

    Args:
        payload: raw body.
        header: `Stripe-Signature`: `t=…,v1=…[,v1=…]`.
        secrets: those that are valid now; none accepts nothing.
        now: time.
    """
    if len(header) > MAX_HEADER or not header.isascii():
        return False
    pairs = [part.strip().partition("=") for part in header.split(",")]
    times = [value for name, _, value in pairs if name == "t"]
    given = [value for name, _, value in pairs if name == _SCHEME]
    if len(times) != 1 or not times[0].isdecimal() or len(times[0]) > len("9999999999"):
        return False
    if abs(now.timestamp() - int(times[0])) > TOLERANCE_S:
        return False
    signed = times[0].encode() + b"." + payload
    fits = False
    for secret in secrets:
        mac = hmac.new(secret.reveal().encode(), signed, hashlib.sha256).hexdigest()
        for each in given:
            fits |= hmac.compare_digest(mac, each)
    return fits
