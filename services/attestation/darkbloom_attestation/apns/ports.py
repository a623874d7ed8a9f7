"""What code identity needs from the world."""

from typing import Protocol

from darkbloom_attestation.apns.model import Push, PushOutcome


class Pusher(Protocol):
    """Whoever brings a push to Apple."""

    async def push(self, push: Push) -> PushOutcome:
        """Send one push; never raises for what Apple or the network does."""
        ...
