"""The media of one request that are still to be fetched, by whichever of its choices is first."""

import asyncio
from typing import final

from darkbloom_edge.dialects.chat import Lowered
from darkbloom_edge.errors import RequestError

from darkbloom_gateway.errors import of_request
from darkbloom_gateway.media.fetcher import Fetcher


@final
class Attachments:
    """Completes a request, once for all of its choices; repr shows nothing.

    Args:
        lowered: the request that names addresses.
        fetcher: gets them.
        account_id: whose request it is.
    """

    def __init__(self, lowered: Lowered, fetcher: Fetcher, account_id: str) -> None:
        self._lowered = lowered
        self._fetcher = fetcher
        self._account_id = account_id
        self._one_by_one = asyncio.Lock()

    async def completed(self) -> Lowered:
        """Return the request with everything in it.

        Raises:
            ApiError: 400 or 503: something cannot be had.
        """
        async with self._one_by_one:
            if self._lowered.remote:
                parts = await self._fetcher.fetch(self._lowered.remote, self._account_id)
                try:
                    self._lowered = await asyncio.to_thread(self._lowered.with_media, parts)
                except RequestError as error:
                    raise of_request(error) from None
            return self._lowered
