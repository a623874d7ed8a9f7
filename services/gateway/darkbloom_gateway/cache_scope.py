"""Who may share a provider's prefix cache: a name that means nothing to the provider.

A provider keeps what it has read of a prompt only for requests that carry the same scope, so the
scope is what keeps accounts apart. It is an HMAC under the secret that only gateways hold, over the
account, the build, the provider and the day: one provider sees that two requests of one day belong
together, which it must, to be of use; it learns neither the account nor anything across days, and
two providers cannot compare.
"""

import hmac
from typing import Final

SCOPE_BYTES: Final = 32
DAY_MS: Final = 24 * 3600 * 1000
_LABEL: Final = b"darkbloom:cache-scope:v1"


def cache_scope(
    secret: bytes, *, account_id: str, build: str, identity_key: bytes, now_ms: int
) -> bytes:
    """Return the scope of a request at one provider, 32 bytes.

    Args:
        secret: 32 bytes that only gateways hold.
        account_id: whose prompt it is.
        build: what reads it.
        identity_key: the provider's, out of its verdict.
        now_ms: Unix milliseconds; the scope changes with the UTC day.
    """
    day = str(now_ms // DAY_MS)
    parts = (account_id.encode(), build.encode(), identity_key, day.encode())
    fields = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return hmac.digest(secret, _LABEL + b"\x00" + fields, "sha256")
