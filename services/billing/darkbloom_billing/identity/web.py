"""Reads issuers' key sets over HTTPS."""

import asyncio
from types import TracebackType
from typing import Self

import httpx

from darkbloom_billing.identity.ports import FetchError

TIMEOUT_S = 5.0
MAX_BYTES = 256 * 1024
_OK = 200


class HttpKeySets:
    """Fetches small documents; follows no redirect, since the address was chosen by an operator."""

    def __init__(self) -> None:
        self._client = httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False)

    async def fetch(self, url: str) -> bytes:
        """See `ports.KeySetSource`."""
        try:
            async with asyncio.timeout(TIMEOUT_S), self._client.stream("GET", url) as response:
                if response.status_code != _OK:
                    raise FetchError(f"status {response.status_code}")
                found = bytearray()
                async for part in response.aiter_bytes():
                    found += part
                    if len(found) > MAX_BYTES:
                        raise FetchError("key set is too large")
        except (httpx.HTTPError, TimeoutError, OSError) as error:
            raise FetchError(type(error).__name__) from None
        return bytes(found)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        """Return the client itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        await self.close()
