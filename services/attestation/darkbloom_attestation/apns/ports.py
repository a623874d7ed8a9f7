"""What code identity needs from the world."""

from typing import Protocol

from darkbloom_edge.code_identity import CodeChallenge

from darkbloom_attestation.apns.model import Push, PushAddress, PushOutcome, PushToken
from darkbloom_attestation.apns.proofs import CodeProof


class Pusher(Protocol):
    """Whoever brings a push to Apple."""

    async def push(self, push: Push) -> PushOutcome:
        """Send one push; never raises for what Apple or the network does."""
        ...


class CodeBook(Protocol):
    """Push addresses, outstanding code challenges and the newest proof of each identity."""

    async def put_address(self, provider_id: str, address: PushAddress) -> None:
        """Write where a push reaches a session's app."""
        ...

    async def address(self, provider_id: str) -> PushAddress | None:
        """Return where a push reaches a session's app."""
        ...

    async def forget_token(self, token: PushToken) -> None:
        """Forget an address that Apple no longer knows."""
        ...

    async def ask(self, challenge: CodeChallenge) -> None:
        """Write an outstanding challenge; the one before can no longer be answered."""
        ...

    async def outstanding(self, provider_id: str) -> CodeChallenge | None:
        """Return what a session was asked and has not answered."""
        ...

    async def consume(self, provider_id: str, nonce: bytes) -> CodeChallenge | None:
        """Take a challenge out, in one statement; None where no such nonce is outstanding."""
        ...

    async def put_proof(self, proof: CodeProof, provider_id: str) -> None:
        """Write the newest answered push of an identity."""
        ...

    async def proof_of(self, identity_key: bytes) -> CodeProof | None:
        """Return the newest answered push of an identity."""
        ...
