"""What a gateway must know before it says that it is ready."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from darkbloom_edge.signatures import Ed25519Signer
from darkbloom_gateway.model import SignedBytes
from darkbloom_gateway.news import TrustNews
from darkbloom_gateway.ports import PublicKey
from darkbloom_gateway.receipts import ReceiptPress
from darkbloom_gateway.verdicts import VerdictDesk
from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.testing import FakeClock


class Attestation:
    """Answers everything at once, and sends its revocations when told to."""

    def __init__(self) -> None:
        self.signer = Ed25519Signer.generate()
        self.synced = asyncio.Event()

    async def verdict_keys(self) -> Sequence[PublicKey]:
        return [PublicKey(self.signer.key_id, self.signer.public, None)]

    async def receipt_keys(self) -> Sequence[PublicKey]:
        return []

    async def register_receipt_key(self, key: PublicKey, gateway: str) -> None:
        """Take a key."""

    async def watch_revocations(
        self, after_generation: int
    ) -> AsyncIterator[tuple[int, SignedBytes | None]]:
        await self.synced.wait()
        yield after_generation + 1, None
        await asyncio.Event().wait()


async def test_a_gateway_is_not_ready_before_it_has_read_the_revocations() -> None:
    attestation, clock = Attestation(), FakeClock()
    press = ReceiptPress(Ed25519Signer.generate())
    desk = VerdictDesk(floor="hardware", development=False)
    news = TrustNews(attestation, desk, press, gateway="g", clock=clock, pins=None)

    def backoff() -> Backoff:
        return Backoff(lambda: 0.5, first_s=0.1, cap_s=0.1)

    keys = asyncio.ensure_future(news.run_keys(backoff))
    revocations = asyncio.ensure_future(news.run_revocations(backoff))
    try:
        async with asyncio.timeout(30):
            while not news.published:  # noqa: ASYNC110 - what it waits for has no event
                await asyncio.sleep(0)  # noqa: TID251 - lets the tasks run, tests no time
            assert desk.keys
            assert not news.ready

            attestation.synced.set()
            while not news.ready:  # noqa: ASYNC110 - what it waits for has no event
                await asyncio.sleep(0)  # noqa: TID251 - lets the tasks run, tests no time
    finally:
        keys.cancel()
        revocations.cancel()
        await asyncio.wait({keys, revocations})
