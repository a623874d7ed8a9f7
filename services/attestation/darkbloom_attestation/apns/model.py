"""What is pushed and what became of it, in words of our own."""

import hashlib
import re
from dataclasses import dataclass, field
from enum import StrEnum

from darkbloom_attestation.errors import PushTokenError

_TOKEN = re.compile(r"[0-9a-fA-F]{64,200}\Z")


class PushEnvironment(StrEnum):
    """Which of Apple's two worlds an app was signed for."""

    PRODUCTION = "production"
    DEVELOPMENT = "development"

    @property
    def origin(self) -> str:
        """The server to talk to."""
        return _ORIGINS[self]


_ORIGINS = {
    PushEnvironment.PRODUCTION: "https://api.push.apple.com",
    PushEnvironment.DEVELOPMENT: "https://api.sandbox.push.apple.com",
}


class PushMode(StrEnum):
    """How a push is delivered."""

    BACKGROUND = "background"
    """Silent, priority 5, throttled by the system."""
    ALERT = "alert"
    """Priority 10; shown nowhere, because the app never asks for the right to show anything."""


@dataclass(frozen=True, slots=True)
class PushToken:
    """Where Apple delivers; a delivery address only, and private. Checked when made."""

    text: str = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse what is no token.

        Raises:
            PushTokenError: not 64 to 200 hex digits; it becomes a part of a path.
        """
        if _TOKEN.match(self.text) is None:
            raise PushTokenError("a push token has 64 to 200 hex digits")

    @property
    def digest(self) -> str:
        """SHA-256 of it in lower case, hex: how it is stored and compared."""
        return hashlib.sha256(self.text.lower().encode("ascii")).hexdigest()


@dataclass(frozen=True, slots=True)
class PushAddress:
    """Where a push reaches the app of one session."""

    token: PushToken
    environment: PushEnvironment


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """One push, ready to be sent."""

    token: PushToken
    environment: PushEnvironment
    mode: PushMode
    payload: bytes = field(repr=False)
    """JSON of at most 4 KiB."""
    lifetime_s: int
    """How long Apple may keep trying."""


class PushResult(StrEnum):
    """What became of a push; a closed vocabulary that may be logged and counted."""

    DELIVERED = "delivered"
    """Apple took it. Whether the app got it, only an answer tells."""
    TOKEN_GONE = "token_gone"  # noqa: S105 - a result, not a secret
    """The token is not, or no longer, one of this app: forget it."""
    REJECTED = "rejected"
    """Apple refuses such a push: our configuration or payload is wrong."""
    CREDENTIALS = "credentials"
    """Apple refuses our signing key."""
    THROTTLED = "throttled"
    """Too many; ask later."""
    UNAVAILABLE = "unavailable"
    """Nobody answered in time, or Apple is down: the same push may be tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PushOutcome:
    """The end of one push."""

    result: PushResult
    reason: str = ""
    """Apple's word for it, where it is a known one."""
    retry_after_s: float | None = None
    """What Apple asked for."""
