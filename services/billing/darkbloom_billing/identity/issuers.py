"""Public keys of issuers: fetched, kept, fetched again, never more often than is decent."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import structlog
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import UnavailableError

from darkbloom_billing.identity.errors import LoginInvalidError
from darkbloom_billing.identity.model import Issuer
from darkbloom_billing.identity.oidc import TokenHead, VerifyingKey, choose_key, read_keys
from darkbloom_billing.identity.ports import FetchError, KeySetSource

FRESH_S = 600.0
"""Keys this old are read again."""
STALE_S = 86_400.0
"""Keys this old no longer count, even while their issuer is away."""
MISS_PERIOD_S = 30.0
"""How soon after one reading an unknown key id may cause another: strangers make those up."""
FIRST_RETRY_S = 1.0
LAST_RETRY_S = 60.0
_log = structlog.get_logger()


@dataclass(slots=True)
class _KeySet:
    issuer: Issuer
    keys: dict[str, VerifyingKey] = field(default_factory=dict)
    read_at: float = float("-inf")
    """Last success, monotonic."""
    wait_until: float = float("-inf")
    """No reading before, after failures."""
    retry_s: float = FIRST_RETRY_S
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class IssuerKeys:
    """Finds the issuer and the key of a token.

    A key that an issuer no longer lists is gone with the next reading. One reading at a time for
    each issuer; failures are retried at doubling distances while what was read before serves on.

    Args:
        issuers: those that we trust.
        source: reads their key sets.
        clock: time.
    """

    def __init__(self, issuers: Sequence[Issuer], source: KeySetSource, clock: Clock) -> None:
        self._sets: Mapping[str, _KeySet] = {one.issuer: _KeySet(one) for one in issuers}
        self._source = source
        self._clock = clock

    async def find(self, head: TokenHead) -> tuple[Issuer, VerifyingKey]:
        """Return issuer and key of a token.

        Raises:
            LoginInvalidError: We do not trust the issuer, or it has no such key.
            UnavailableError: Its keys cannot be read now.
        """
        known = self._sets.get(head.issuer)
        if known is None:
            raise LoginInvalidError("login token is of an issuer that is not accepted")
        now = self._clock.monotonic()
        if now - known.read_at >= FRESH_S:
            await self._read(known, not_after=now - FRESH_S)
        if choose_key(known.keys, head) is None and now - known.read_at >= MISS_PERIOD_S:
            await self._read(known, not_after=now - MISS_PERIOD_S)
        if self._clock.monotonic() - known.read_at >= STALE_S:
            raise UnavailableError("keys of the login issuer cannot be read now")
        key = choose_key(known.keys, head)
        if key is None:
            raise LoginInvalidError("login token is signed with an unknown key")
        return known.issuer, key

    async def _read(self, known: _KeySet, *, not_after: float) -> None:
        """Read a key set unless somebody did meanwhile, or it has just failed."""
        async with known.lock:
            now = self._clock.monotonic()
            if known.read_at > not_after or now < known.wait_until:
                return
            try:
                keys = read_keys(await self._source.fetch(known.issuer.jwks_url))
            except (FetchError, ValueError) as error:
                known.wait_until = now + known.retry_s
                known.retry_s = min(2 * known.retry_s, LAST_RETRY_S)
                _log.warning("login_keys_not_read", error=type(error).__name__)
                return
            known.keys = keys
            known.read_at = now
            known.retry_s = FIRST_RETRY_S
