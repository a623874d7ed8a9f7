"""The stock Stripe SDK, asynchronous and bounded in time."""

from collections.abc import Mapping
from typing import Any

from darkbloom_mesh.config import Secret
from stripe import HTTPXClient, StripeClient


class _Client(HTTPXClient):
    """The SDK's own httpx client, without the argument that httpx deprecates."""

    def _get_request_args_kwargs(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any
    ) -> list[Any]:
        arguments: list[Any] = super()._get_request_args_kwargs(method, url, headers, post_data)
        options = arguments[1]
        options["content"] = options.pop("data") or None
        return arguments

    async def close_async(self) -> None:
        """Close every connection."""
        await self._client_async.aclose()


class Stripe:
    """One API key's client.

    Args:
        key: secret API key.
        api_base: where Stripe is; None is Stripe itself.
        timeout_s: longest wait for one answer.
    """

    def __init__(self, key: Secret, *, api_base: str | None, timeout_s: float) -> None:
        self._http = _Client(timeout=timeout_s)
        self._client = StripeClient(
            key.reveal(),
            base_addresses={"api": api_base} if api_base else None,
            http_client=self._http,
            # Repeating is our decision: it needs the same key and a row that says so.
            max_network_retries=0,
        )

    @property
    def v1(self) -> Any:
        """The SDK's services."""
        return self._client.v1

    async def close(self) -> None:
        """Close every connection."""
        await self._http.close_async()
