"""The inference endpoints: one raw ASGI application per dialect, all on one pipeline."""

import asyncio
from typing import final

from darkbloom_edge.dialects.dialect import Dialect

from darkbloom_gateway.auth import Authenticator
from darkbloom_gateway.choices import Choices
from darkbloom_gateway.errors import ApiError, ClientGoneError
from darkbloom_gateway.gate import Gate
from darkbloom_gateway.manner import Manner
from darkbloom_gateway.media.attachments import Attachments
from darkbloom_gateway.model import KeyRecord
from darkbloom_gateway.prompt import Prompt
from darkbloom_gateway.reading import Reader
from darkbloom_gateway.reply import GONE_STATUS, Reply
from darkbloom_gateway.stage import Stage
from darkbloom_gateway.wire import (
    Receive,
    Scope,
    Send,
    presented,
    send_error,
)


@final
class Inference:
    """One endpoint.

    Args:
        dialect: what it takes and gives.
        endpoint: its word in metrics.
        stage: collaborators of the token path.
        authenticator: who asks.
        gate: counts what is in flight, and says no while draining.
    """

    def __init__(
        self,
        dialect: Dialect,
        endpoint: str,
        stage: Stage,
        authenticator: Authenticator,
        gate: Gate,
    ) -> None:
        self._dialect = dialect
        self._endpoint = endpoint
        self._reader = Reader(dialect, stage)
        self._stage = stage
        self._authenticator = authenticator
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        self._stage.meters.received(self._endpoint)
        model, status = "unknown", GONE_STATUS
        try:
            with self._gate.entered(), self._stage.spans.request(scope):
                with self._stage.spans.step("gateway.auth"):
                    key = await self._authenticator.authenticate(presented(scope))
                manner, prompts = await self._read(scope, receive, key)
                model = manner.build
                reply: Reply | Choices
                if len(prompts) == 1:
                    reply = Reply(self._stage, self._dialect, manner, prompts[0], key)
                else:
                    reply = Choices(self._stage, self._dialect, manner, prompts, key)
                # What was asked is the reply's alone, which forgets it.
                del prompts
                status = await reply.run(receive, send)
        except ClientGoneError:
            self._stage.meters.client_gone(model, committed=False)
        except ApiError as error:
            status = error.http_status
            try:
                async with asyncio.timeout(self._stage.config.send_stall_s):
                    await send_error(send, error, path=scope["path"])
            except TimeoutError:
                status = GONE_STATUS
        if status:
            self._stage.meters.outcome(model, status)

    async def _read(
        self, scope: Scope, receive: Receive, key: KeyRecord
    ) -> tuple[Manner, list[Prompt]]:
        asked = await self._reader.read(scope, receive, key)
        lowered = asked.lowered
        waiting = (
            Attachments(lowered, self._stage.fetcher, key.account_id) if lowered.remote else None
        )
        prompts = [
            Prompt(one, asked.body, plan, asked.catalog.builds, choice, waiting)
            for one, choice, plan in asked.jobs
        ]
        return Manner.of(lowered, asked.plan, scope), prompts
