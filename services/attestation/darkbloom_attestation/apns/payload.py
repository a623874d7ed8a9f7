"""The bytes of a code challenge push (spec/security.md §10)."""

from typing import Any

import orjson
from darkbloom_edge.code_identity import MAX_AGE, SealedChallenge
from darkbloom_edge.signatures import to_base64

from darkbloom_attestation.apns.model import Push, PushEnvironment, PushMode, PushToken

MAX_PAYLOAD_BYTES = 4096
"""Apple's limit."""
ALERT_TITLE = "Darkbloom checks that this Mac still runs its signed provider"
"""Never shown: the app has no right to show notifications. Fixed text, so nothing can leak in."""


def challenge_push(
    sealed: SealedChallenge, token: PushToken, environment: PushEnvironment, mode: PushMode
) -> Push:
    """Return the push that carries a sealed challenge.

    Raises:
        ValueError: the challenge does not fit; ours are a tenth of the limit.
    """
    aps: dict[str, Any] = {"content-available": 1}
    if mode is PushMode.ALERT:
        aps["alert"] = {"title": ALERT_TITLE}
    payload = orjson.dumps(
        {
            "aps": aps,
            "code_challenge": {
                "ephemeral_public_key": to_base64(sealed.ephemeral_public_key),
                "ciphertext": to_base64(sealed.ciphertext),
            },
        }
    )
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError("a push has at most 4 KiB")

    return Push(
        token=token,
        environment=environment,
        mode=mode,
        payload=payload,
        lifetime_s=int(MAX_AGE.total_seconds()),
    )
