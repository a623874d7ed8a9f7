"""Evidence of this process: one question to the platform at a time, and never too many."""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import final

import structlog
from darkbloom_edge.documents import rfc3339
from darkbloom_edge.gateway_evidence import GatewayStatement, StatedKey, report_data
from darkbloom_edge.sealing_keys import SealingKey
from darkbloom_edge.signatures import to_base64
from darkbloom_mesh.clock import Clock

from darkbloom_gateway.confidential.quotes import NoQuoteError, Quote, Quoter, WhyNone
from darkbloom_gateway.errors import rate_limited
from darkbloom_gateway.model import SignedBytes
from darkbloom_gateway.receipts import ReceiptPress
from darkbloom_gateway.sealing_ring import SealingRing

WAIT_S = 5.0
"""How long an answer waits for the platform."""
KEPT_S = 60.0
"""How long evidence without a nonce is given out again."""
EVERY_S = 0.5
"""Least time between two questions to the platform: it is one for the whole machine."""
MAX_WAITING = 8
"""Most callers that wait for their turn, each for `EVERY_S` in the common case."""
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """What the operator says is running here."""

    gateway: str
    environment: str
    version: str
    commit: str | None
    image_digest: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A statement, and the quote over it or the reason that there is none."""

    statement: GatewayStatement
    signed: SignedBytes
    report_data: bytes
    quote: Quote | None
    why_none: WhyNone | None


@final
class EvidenceDesk:
    """Makes evidence.

    Args:
        quoter: asks the platform.
        ring: the published keys.
        press: signs.
        build: what is said to run here.
        clock: time.
    """

    def __init__(
        self, quoter: Quoter, *, ring: SealingRing, press: ReceiptPress, build: Build, clock: Clock
    ) -> None:
        self._quoter = quoter
        self._ring = ring
        self._press = press
        self._build = build
        self._clock = clock
        self._kept: tuple[tuple[StatedKey, ...], float, Evidence] | None = None
        self._line = asyncio.Lock()
        self._waiting = 0
        self._free_at = 0.0
        self._asked: asyncio.Future[Quote] | None = None

    async def evidence(self, nonce: str | None) -> Evidence:
        """Return evidence with the caller's nonce; without one it may be a minute old.

        Raises:
            ApiError: 429: too many wait for the platform already.
        """
        kept = self._fresh(nonce)
        if kept is not None:
            return kept
        if self._waiting >= MAX_WAITING:
            raise rate_limited(EVERY_S * MAX_WAITING)
        self._waiting += 1
        try:
            async with self._line:
                return self._fresh(nonce) or await self._in_turn(nonce)
        finally:
            self._waiting -= 1

    def _fresh(self, nonce: str | None) -> Evidence | None:
        if nonce is not None or self._kept is None:
            return None
        keys, made_at, evidence = self._kept
        young = self._clock.monotonic() - made_at < KEPT_S
        return evidence if young and keys == self._keys() else None

    async def _in_turn(self, nonce: str | None) -> Evidence:
        pause_s = self._free_at - self._clock.monotonic()
        if pause_s > 0:
            await self._clock.sleep(pause_s)
        keys = self._keys()
        made = await self._make(keys, nonce, self._clock.now())
        now = self._clock.monotonic()
        if made.why_none is not WhyNone.NO_DEVICE:
            self._free_at = now + EVERY_S
        if nonce is None:
            self._kept = keys, now, made
        return made

    def _keys(self) -> tuple[StatedKey, ...]:
        current, previous = self._ring.published()
        return () if current is None else tuple(_stated(key) for key in (current, *previous))

    async def _make(
        self, keys: tuple[StatedKey, ...], nonce: str | None, now: datetime
    ) -> Evidence:
        build = self._build
        statement = GatewayStatement(
            gateway=build.gateway,
            environment="development" if build.environment == "development" else "production",
            nonce=nonce,
            issued_at=rfc3339(now),
            encryption_keys=keys,
            countersign_key=to_base64(self._press.public_key),
            software_version=build.version,
            build_commit=build.commit,
            image_digest=build.image_digest,
        )
        signed = self._press.state(statement)
        data = report_data(signed.document)
        quote, why = await self._quote(data)
        return Evidence(
            statement=statement, signed=signed, report_data=data, quote=quote, why_none=why
        )

    async def _quote(self, data: bytes) -> tuple[Quote | None, WhyNone | None]:
        """Ask in a thread. A kernel that hangs keeps that one thread, and nobody asks again."""
        if self._asked is not None:
            return None, WhyNone.LATE
        asked = asyncio.get_running_loop().run_in_executor(None, self._quoter.quote, data)
        self._asked = asked
        asked.add_done_callback(self._answered)
        done, _ = await asyncio.wait({asked}, timeout=WAIT_S)
        if not done:
            _log.warning("platform_quote_late", waited_s=WAIT_S)
            return None, WhyNone.LATE
        try:
            return asked.result(), None
        except NoQuoteError as error:
            if error.why is not WhyNone.NO_DEVICE:
                _log.warning("platform_quote_failed", reason=error.why.value)
            return None, error.why

    def _answered(self, asked: asyncio.Future[Quote]) -> None:
        self._asked = None
        if not asked.cancelled():
            # Whoever asked may be gone: somebody has to look at it.
            asked.exception()


def _stated(key: SealingKey) -> StatedKey:
    return StatedKey(kid=key.kid, public_key=to_base64(key.pair.public))
