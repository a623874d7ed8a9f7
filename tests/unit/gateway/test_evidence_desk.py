"""Who gets which evidence, and how often the platform is asked for it."""

import asyncio
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from darkbloom_edge.gateway_evidence import report_data
from darkbloom_edge.sealing_keys import KeyRing, encode_keys, rotated
from darkbloom_edge.signatures import Ed25519Signer
from darkbloom_gateway.confidential import desk as module
from darkbloom_gateway.confidential.desk import MAX_WAITING, Build, EvidenceDesk
from darkbloom_gateway.confidential.quotes import NoQuoteError, Quote, WhyNone
from darkbloom_gateway.errors import ApiError
from darkbloom_gateway.receipts import ReceiptPress
from darkbloom_gateway.sealing_ring import SealingRing
from darkbloom_mesh.testing import FakeClock

NONCE = "ab" * 32
BUILD = Build(gateway="g/0", environment="development", version="1", commit=None, image_digest=None)


class Platform:
    """Answers at once, or when it is let go, or never well."""

    def __init__(self, why: WhyNone | None = None) -> None:
        self.why = why
        self.asked: list[bytes] = []
        self.may_answer = threading.Event()
        self.may_answer.set()

    def quote(self, data: bytes) -> Quote:
        self.asked.append(data)
        self.may_answer.wait(30)
        if self.why is not None:
            raise NoQuoteError(self.why)
        return Quote(kind="sev_guest", report=data)


def made(platform: Platform, clock: FakeClock, keys: Path | None = None) -> EvidenceDesk:
    return EvidenceDesk(
        platform,
        ring=SealingRing(keys, clock),
        press=ReceiptPress(Ed25519Signer(b"\x01" * 32)),
        build=BUILD,
        clock=clock,
    )


async def test_a_quote_is_over_the_statement_with_the_callers_nonce_and_the_published_keys(
    tmp_path: Path,
) -> None:
    clock, platform, keys = FakeClock(), Platform(), tmp_path / "keys"
    ring = rotated(
        KeyRing(), b"\x01" * 32, clock.now(), lead=timedelta(0), grace=timedelta(minutes=15)
    )
    keys.write_bytes(encode_keys(ring))

    evidence = await made(platform, clock, keys).evidence(NONCE)

    assert evidence.quote is not None
    assert evidence.statement.nonce == NONCE
    assert [key.kid for key in evidence.statement.encryption_keys] == [ring.keys[0].kid]
    assert platform.asked == [report_data(evidence.signed.document)] == [evidence.report_data]


async def test_without_a_nonce_the_platform_is_asked_once_a_minute() -> None:
    clock, platform = FakeClock(), Platform()
    desk = made(platform, clock)

    first = await desk.evidence(None)
    assert await desk.evidence(None) is first
    await clock.advance(61)
    assert await desk.evidence(None) is not first

    assert len(platform.asked) == 2


async def test_a_machine_without_a_platform_says_so_and_makes_nobody_wait() -> None:
    desk = made(Platform(WhyNone.NO_DEVICE), FakeClock())

    for _ in range(3):
        evidence = await desk.evidence(NONCE)
        assert evidence.quote is None
        assert evidence.why_none is WhyNone.NO_DEVICE


async def test_the_next_caller_waits_for_the_platform_and_one_too_many_is_429() -> None:
    clock, platform = FakeClock(), Platform()
    desk = made(platform, clock)
    await desk.evidence(NONCE)

    waiting = [asyncio.ensure_future(desk.evidence(NONCE)) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0)  # noqa: TID251 - lets the tasks run, tests no time
    with pytest.raises(ApiError) as caught:
        await desk.evidence(NONCE)
    assert caught.value.http_status == 429
    assert caught.value.retry_after_s is not None
    assert len(platform.asked) == 1
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_platform_that_hangs_is_not_asked_again_and_nobody_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "WAIT_S", 0.01)
    clock, platform = FakeClock(), Platform()
    platform.may_answer.clear()
    desk = made(platform, clock)
    try:
        late = await desk.evidence(NONCE)
        await clock.advance(0)
        again = asyncio.ensure_future(desk.evidence(NONCE))
        await clock.advance(1)
        second = await again
    finally:
        platform.may_answer.set()

    assert late.why_none is second.why_none is WhyNone.LATE
    assert len(platform.asked) == 1
