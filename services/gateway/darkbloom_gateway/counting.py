"""`POST /v1/messages/count_tokens`: how many tokens a request would send to the model."""

import asyncio
from typing import final

from darkbloom_edge.dialects.messages import MESSAGES

from darkbloom_gateway.auth import Authenticator
from darkbloom_gateway.errors import ApiError, ClientGoneError
from darkbloom_gateway.gate import Gate
from darkbloom_gateway.reading import Reader
from darkbloom_gateway.reservation import RateClaim
from darkbloom_gateway.stage import Stage
from darkbloom_gateway.wire import Headers, Receive, Scope, Send, presented, send_error, send_json

COUNT_PATH = "/v1/messages/count_tokens"
GONE_STATUS = 499


@final
class CountTokens:
    """The endpoint; it reads a body as `/v1/messages` does, and asks nobody.

    The number is that of the build's own tokenizer plus a guess of what the chat template adds, or
    where no tokenizer is here the estimate that routing uses; a header says which. It takes one
    request of the rates and no tokens.

    Args:
        stage: collaborators of the token path.
        authenticator: who asks.
        gate: counts what is in flight.
    """

    def __init__(self, stage: Stage, authenticator: Authenticator, gate: Gate) -> None:
        self._stage = stage
        self._authenticator = authenticator
        self._gate = gate
        self._reader = Reader(MESSAGES, stage)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        patience_s = self._stage.config.send_stall_s
        try:
            try:
                count, headers = await self._count(scope, receive)
                async with asyncio.timeout(patience_s):
                    await send_json(send, 200, b'{"input_tokens":%d}' % count, headers)
            except ApiError as error:
                async with asyncio.timeout(patience_s):
                    await send_error(send, error, path=scope["path"])
        except (ClientGoneError, TimeoutError):
            return

    async def _count(self, scope: Scope, receive: Receive) -> tuple[int, Headers]:
        """Count; a body has the time that `read_body` gives it, whatever its length."""
        with self._gate.entered():
            key = await self._authenticator.authenticate(presented(scope))
            plan = (await self._reader.read(scope, receive, key)).plan
            claim = RateClaim(self._stage, key, plan.claim)
            await claim.allowed()
            claim.settle(0, 0)
        how = b"tokenizer" if plan.counted else b"estimate"
        return plan.prompt_estimate, [*claim.headers, (b"x-darkbloom-token-count", how)]
