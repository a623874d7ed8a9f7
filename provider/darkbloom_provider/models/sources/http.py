"""Files over HTTP: a CDN folder, a presigned address, or a Hugging Face repository at a commit."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

import httpx
from darkbloom_edge.model_source import ModelSource

from darkbloom_provider.models.sources.interface import (
    CONNECT_S,
    SILENCE_S,
    LostError,
    RangeIgnoredError,
    RefusedError,
)

MAX_REDIRECTS: Final = 5
MAX_CONNECTIONS: Final = 8
_OK, _PARTIAL = 200, 206
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_TRY_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


def make_client() -> httpx.AsyncClient:
    """Return a client whose every wait has a bound; it follows no redirect by itself."""
    return httpx.AsyncClient(
        timeout=httpx.Timeout(SILENCE_S, connect=CONNECT_S),
        limits=httpx.Limits(max_connections=MAX_CONNECTIONS),
        # What is compressed on the way has another length than the manifest says.
        headers={"accept-encoding": "identity", "user-agent": "darkbloom"},
        follow_redirects=False,
    )


class HttpSource:
    """One folder of the web.

    Args:
        place: what to read.
        client: of `make_client`; closed with the source.
        hub: base URL of the Hugging Face hub.
        plain_http: whether `http` on the loopback will do; for development.
    """

    def __init__(
        self, place: ModelSource, client: httpx.AsyncClient, *, hub: str, plain_http: bool
    ) -> None:
        self._place = place
        self._client = client
        self._hub = hub.rstrip("/")
        self._plain_http = plain_http

    @property
    def name(self) -> str:
        """The place as it was written."""
        return self._place.text

    @asynccontextmanager
    async def open(self, path: str, offset: int) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a file; see `Source`."""
        headers = {"range": f"bytes={offset}-"} if offset else {}
        url = self._place.file_url(path, self._hub)
        try:
            response = await self._get(url, headers)
        except httpx.HTTPError as error:
            raise LostError(f"{self.name} does not answer ({type(error).__name__})") from None
        except (httpx.InvalidURL, ValueError):
            # A redirect to a name or port that cannot be, which is no `HTTPError`.
            raise RefusedError(f"{self.name} sends us to no address at all") from None
        try:
            _check(response, offset, self.name)
            yield _blocks(response, self.name)
        finally:
            await response.aclose()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _get(self, url: str, headers: dict[str, str]) -> httpx.Response:
        for _ in range(MAX_REDIRECTS + 1):
            request = self._client.build_request("GET", url, headers=headers)
            response = await self._client.send(request, stream=True)
            if response.status_code not in _REDIRECTS:
                return response
            await response.aclose()
            url = str(request.url.join(response.headers.get("location", "")))
            if not self._allowed(url):
                raise RefusedError(f"{self.name} sends us to a place that is not https")
        raise RefusedError(f"{self.name} sends us around in circles")

    def _allowed(self, url: str) -> bool:
        """Return whether a redirect may go there; ValueError where no port is so high."""
        parts = urlsplit(url)
        if parts.port == 0:
            return False
        plain = self._plain_http and parts.scheme == "http" and parts.hostname in _LOOPBACK
        return parts.scheme == "https" or plain


def _check(response: httpx.Response, offset: int, name: str) -> None:
    status = response.status_code
    if offset and status == _PARTIAL:
        begins = response.headers.get("content-range", "").startswith(f"bytes {offset}-")
        if not begins:
            raise LostError(f"{name} gives another part of the file than was asked for")
        return
    if status == _OK:
        if offset:
            # No ranges here: what came before counts nothing.
            raise RangeIgnoredError(f"{name} cannot resume")
        return
    if status in _TRY_AGAIN:
        raise LostError(f"{name} answers {status}")
    if offset and status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
        raise RangeIgnoredError(f"{name} has a shorter file now")
    raise RefusedError(f"{name} answers {status}")


async def _blocks(response: httpx.Response, name: str) -> AsyncIterator[bytes]:
    try:
        async for block in response.aiter_raw():
            yield block
    except httpx.HTTPError as error:
        raise LostError(f"{name} broke off ({type(error).__name__})") from None
