"""What stops the agent or one of its commands, said so that the owner knows what to do."""

from __future__ import annotations


class ProviderError(Exception):
    """A failure with a sentence for the owner and, where there is one, the remedy.

    Args:
        message: What is wrong; lower case, no full stop, free of content and secrets.
        remedy: What to do about it; empty when nothing can be said.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class AlreadyRunningError(ProviderError):
    """Another agent holds the lock of this home."""


class IdentityError(ProviderError):
    """The identity key file cannot be trusted: unreadable, malformed, or open to others."""


class HardeningError(ProviderError):
    """A protection that this platform offers could not be put in force."""
