"""Sends pushes to Apple over HTTP/2.

The device token is a part of the path and the signature a header, so nothing here logs, and what
the HTTP libraries would log of each request is silenced; errors leave as a closed vocabulary.
"""

import asyncio
import logging
import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, final

import httpx
import orjson
from darkbloom_mesh.clock import Clock

from darkbloom_attestation.apns.credentials import ProviderToken
from darkbloom_attestation.apns.model import (
    Push,
    PushEnvironment,
    PushMode,
    PushOutcome,
    PushResult,
)

TIMEOUT_S = 15.0
"""Bound of one push, from dialling to its answer."""
MAX_ANSWER_BYTES = 4096
"""Most that is read of an answer; Apple's have 100."""
MAX_RETRY_AFTER_S = 3600.0
"""Longest pause that is believed."""
MAX_CONCURRENT = 64
"""Pushes under way at a time; the others wait, within their own deadline."""

_NOISY = ("httpx", "httpcore", "hpack")
_OK = 200
_PRIORITY = {PushMode.BACKGROUND: "5", PushMode.ALERT: "10"}
_BY_REASON = {
    "BadDeviceToken": PushResult.TOKEN_GONE,
    "DeviceTokenNotForTopic": PushResult.TOKEN_GONE,
    "Unregistered": PushResult.TOKEN_GONE,
    "ExpiredToken": PushResult.TOKEN_GONE,
    "ExpiredProviderToken": PushResult.CREDENTIALS,
    "InvalidProviderToken": PushResult.CREDENTIALS,
    "MissingProviderToken": PushResult.CREDENTIALS,
    "BadCertificate": PushResult.CREDENTIALS,
    "BadCertificateEnvironment": PushResult.CREDENTIALS,
    "Forbidden": PushResult.CREDENTIALS,
    "TooManyRequests": PushResult.THROTTLED,
    "TooManyProviderTokenUpdates": PushResult.THROTTLED,
    "BadTopic": PushResult.REJECTED,
    "TopicDisallowed": PushResult.REJECTED,
    "MissingTopic": PushResult.REJECTED,
    "BadExpirationDate": PushResult.REJECTED,
    "BadPriority": PushResult.REJECTED,
    "BadMessageId": PushResult.REJECTED,
    "BadPath": PushResult.REJECTED,
    "InvalidPushType": PushResult.REJECTED,
    "MethodNotAllowed": PushResult.REJECTED,
    "PayloadEmpty": PushResult.REJECTED,
    "PayloadTooLarge": PushResult.REJECTED,
    "IdleTimeout": PushResult.UNAVAILABLE,
    "InternalServerError": PushResult.UNAVAILABLE,
    "ServiceUnavailable": PushResult.UNAVAILABLE,
    "Shutdown": PushResult.UNAVAILABLE,
}
_BY_STATUS = {403: PushResult.CREDENTIALS, 410: PushResult.TOKEN_GONE, 429: PushResult.THROTTLED}
_SERVER_ERROR = 500


@final
class ApnsClient:
    """One process's connections to Apple.

    Args:
        credentials: signs for our team.
        topic: App ID that alone gets the pushes.
        clock: dates the expiry.
        tls: trust; the system's roots where None.
        origins: servers other than Apple's, for tests.
    """

    def __init__(
        self,
        credentials: ProviderToken,
        *,
        topic: str,
        clock: Clock,
        tls: ssl.SSLContext | None = None,
        origins: Mapping[PushEnvironment, str] | None = None,
    ) -> None:
        for name in _NOISY:
            logging.getLogger(name).setLevel(logging.WARNING)
        self._credentials = credentials
        self._topic = topic
        self._clock = clock
        self._origins = origins or {one: one.origin for one in PushEnvironment}
        # Apple speaks nothing but HTTP/2, and a downgrade could only be somebody else.
        self._client = httpx.AsyncClient(
            http1=False,
            http2=True,
            verify=tls or ssl.create_default_context(),
            timeout=TIMEOUT_S,
            follow_redirects=False,
            trust_env=False,
            limits=httpx.Limits(max_connections=4, max_keepalive_connections=2),
        )
        self._turns = asyncio.Semaphore(MAX_CONCURRENT)

    async def push(self, push: Push) -> PushOutcome:
        """Send one push within 15 s; see `ports.Pusher`."""
        token = self._credentials.current()
        url = f"{self._origins[push.environment]}/3/device/{push.token.text}"
        try:
            async with (
                asyncio.timeout(TIMEOUT_S),
                self._turns,
                self._client.stream(
                    "POST", url, content=push.payload, headers=self._headers(push, token)
                ) as response,
            ):
                body = await _read(response)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, TimeoutError, OSError):
            # The error would show the address, which holds the device token.
            return PushOutcome(result=PushResult.UNAVAILABLE)

        outcome = _outcome(response, body)
        if outcome.reason == "ExpiredProviderToken":
            self._credentials.refuse(token)

        return outcome

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

    def _headers(self, push: Push, token: str) -> dict[str, str]:
        expiration = int(self._clock.now().timestamp()) + push.lifetime_s

        return {
            "authorization": f"bearer {token}",
            "apns-topic": self._topic,
            "apns-push-type": push.mode.value,
            "apns-priority": _PRIORITY[push.mode],
            "apns-expiration": str(expiration),
            "content-type": "application/json",
        }


async def _read(response: httpx.Response) -> bytes:
    found = bytearray()
    async for part in response.aiter_raw():
        found += part
        if len(found) > MAX_ANSWER_BYTES:
            break

    return bytes(found[:MAX_ANSWER_BYTES])


def _outcome(response: httpx.Response, body: bytes) -> PushOutcome:
    if response.status_code == _OK:
        return PushOutcome(result=PushResult.DELIVERED)

    reason = _reason(body)
    by_status = _BY_STATUS.get(response.status_code, PushResult.REJECTED)
    if response.status_code >= _SERVER_ERROR:
        by_status = PushResult.UNAVAILABLE

    return PushOutcome(
        result=_BY_REASON.get(reason, by_status),
        reason=reason,
        retry_after_s=_retry_after(response.headers.get("retry-after", "")),
    )


def _reason(body: bytes) -> str:
    """Return Apple's word where we know it; text of a stranger goes no further."""
    try:
        said: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    reason = said.get("reason") if isinstance(said, dict) else None

    return reason if isinstance(reason, str) and reason in _BY_REASON else ""


def _retry_after(text: str) -> float | None:
    digits = text.isascii() and text.isdecimal()

    return min(float(text), MAX_RETRY_AFTER_S) if digits and len(text) < 10 else None  # noqa: PLR2004 - beyond it is no pause
