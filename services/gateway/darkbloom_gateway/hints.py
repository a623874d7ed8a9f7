"""Who may have read the beginning of this prompt: opaque keys that help a router choose.

A chain of HMACs over the account, the build, the tools and each message, under a secret that only
gateways hold. Whoever sees a key learns that two requests of one account may begin alike, and
nothing about what they say; without the secret it cannot be guessed, nor joined across accounts.
The router keeps keys for half a minute, in memory (routing section 16).
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

KEY_BYTES: Final = 16
MAX_KEYS: Final = 32
MIN_TOKENS: Final = 256
"""Shorter prompts are read faster than a cache is worth."""
MAX_TOKENS: Final = 65_536
"""Longer ones would hold the loop up for a millisecond and more."""
SECRET_BYTES: Final = 32


def prefix_hint(
    secret: bytes,
    *,
    account_id: str,
    build: str,
    fields: Mapping[str, Any],
    prompt_tokens: int,
) -> bytes:
    """Return up to 32 keys of 16 bytes, shortest prefix first; empty for a short prompt.

    Args:
        secret: 32 bytes that only gateways hold.
        account_id: whose prompt it is.
        build: what would read it.
        fields: of the lowered request; only `tools` and `messages` are looked at.
        prompt_tokens: estimate.
    """
    messages: Sequence[Any] = fields.get("messages") or ()
    if not MIN_TOKENS <= prompt_tokens <= MAX_TOKENS or not messages:
        return b""
    keys = []
    try:
        start = orjson.dumps([account_id, build, fields.get("tools")])
        state = hmac.digest(secret, start, "sha256")
        for message in messages:
            state = hmac.digest(secret, state + _digest(message), "sha256")
            keys.append(state[:KEY_BYTES])
    except TypeError:
        # A number that this writer does not know; a hint is worth no error.
        return b""
    # The longest prefixes are worth the most.
    return b"".join(keys[-MAX_KEYS:])


def _digest(message: Any) -> bytes:
    return hashlib.sha256(orjson.dumps(message)).digest()
