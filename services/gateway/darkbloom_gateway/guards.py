"""Limits of the control plane: changes to money and keys, and callers without a credential."""

import hashlib
from ipaddress import IPv6Address, ip_address

from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError

from darkbloom_gateway.buckets import Charge, Decision, Dimension, Meter, Rate
from darkbloom_gateway.errors import ApiError, rate_limited, unavailable
from darkbloom_gateway.limits import RateLimiter
from darkbloom_gateway.meters import Meters

_STORE_RETRY_S = 5.0
_MAX_FORWARDED = 1024
_IPV6_NETWORK = 64
_ONE = (1, 0, 0)


class Guards:
    """Slow limits, kept in the same shared buckets as those of inference.

    Args:
        limiter: decides.
        financial: rate of an account, whatever its role.
        address: rate of one network address.
        proxies: how many proxies of ours stand before this gateway, each of which appends the
            address that it saw to `X-Forwarded-For`; 0 believes no header.
        clock: time.
        meters: counters.
    """

    def __init__(
        self,
        limiter: RateLimiter,
        *,
        financial: Rate,
        address: Rate,
        proxies: int,
        clock: Clock,
        meters: Meters,
    ) -> None:
        self._limiter = limiter
        self._financial = financial
        self._address = address
        self._proxies = proxies
        self._clock = clock
        self._meters = meters

    async def financial(self, account_id: str, *, revokes: bool = False) -> None:
        """Claim one change of money or keys.

        Without the shared buckets nothing is changed, because each gateway by itself would let the
        whole rate pass; but a credential can always be revoked.

        Args:
            account_id: whose.
            revokes: the change only takes something away, such as a leaked key.

        Raises:
            ApiError: 429; 503 where the buckets do not answer.
        """
        meter = Meter(f"{account_id}:financial", (self._financial, None, None), "financial")
        await self._claim(Charge((meter,), _ONE, shared_only=not revokes))

    def network(self, peer: str, forwarded: str | None) -> str:
        """Return whom a call counts against; see `network_of`."""
        return network_of(peer, forwarded, self._proxies)

    async def address(self, peer: str, forwarded: str | None) -> None:
        """Claim one call of a caller who has shown no credential.

        Without the shared buckets each gateway limits by itself.

        Args:
            peer: address of the other end of the connection; empty where there is none.
            forwarded: `X-Forwarded-For`.

        Raises:
            ApiError: 429.
        """
        network = network_of(peer, forwarded, self._proxies)
        # An address is somebody's; the store need not know whose.
        name = hashlib.sha256(network.encode()).hexdigest()[:32]
        meter = Meter(f"address:{name}", (self._address, None, None), "address")
        await self._claim(Charge((meter,), _ONE))

    async def _claim(self, charge: Charge) -> None:
        try:
            decision = await self._limiter.submit(charge)
        except MeshError:
            raise unavailable() from None
        if decision is None:
            raise unavailable(retry_after_s=_STORE_RETRY_S)
        if decision.refused is not None:
            self._meters.rate_limited("", charge.meters[0].owner)
            raise limited(decision, self._clock)


def limited(decision: Decision, clock: Clock) -> ApiError:
    """Return the 429 of a refused claim."""
    refused = decision.refused
    wait_s = refused.wait_s if refused is not None else 0.0
    headers = decision.headers()
    if refused is None or refused.dimension is Dimension.REQUESTS:
        reset = b"%d" % (clock.now().timestamp() + wait_s + 1)
        headers = (*headers, (b"x-ratelimit-reset", reset))
    return rate_limited(wait_s, headers)


def network_of(peer: str, forwarded: str | None, proxies: int) -> str:
    """Return whom a call counts against: an IPv4 address, or the /64 of an IPv6 address.

    What the outermost of our proxies wrote is believed, and nothing left of it: anybody can send
    that header.
    """
    hops = [hop.strip() for hop in (forwarded or "")[-_MAX_FORWARDED:].split(",")]
    given = hops[-proxies] if 0 < proxies <= len(hops) else peer
    try:
        found = ip_address(given)
    except ValueError:
        return peer
    if isinstance(found, IPv6Address):
        mapped = found.ipv4_mapped
        if mapped is not None:
            return str(mapped)
        return str(IPv6Address(int(found) >> (128 - _IPV6_NETWORK) << (128 - _IPV6_NETWORK)))
    return str(found)
