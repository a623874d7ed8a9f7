"""`POST /v1/offers`: find a provider, hold the money, and hand both to the client for a moment."""

import asyncio
from functools import partial
from typing import final

from darkbloom_edge.errors import MalformedError
from darkbloom_edge.ids import new_id
from darkbloom_edge.offers import (
    MAX_REQUEST_BYTES,
    MAX_RESERVE_MS,
    parse_offer_request,
)

from darkbloom_gateway.auth import Authenticator
from darkbloom_gateway.end_to_end.planning import plan_offer
from darkbloom_gateway.end_to_end.searching import Search
from darkbloom_gateway.end_to_end.slots import GRACE_S, SEARCH_S, Slots
from darkbloom_gateway.errors import (
    ApiError,
    ClientGoneError,
    bad_request,
    unavailable,
)
from darkbloom_gateway.gate import Gate
from darkbloom_gateway.presence import Presence
from darkbloom_gateway.self_route import read_route
from darkbloom_gateway.stage import Stage
from darkbloom_gateway.wire import (
    Receive,
    Scope,
    Send,
    presented,
    read_body,
    send_error,
    send_json,
)

OFFERS_PATH = "/v1/offers"
_NO_STORE = ((b"cache-control", b"no-store"),)


@final
class Offers:
    """The endpoint.

    Args:
        stage: collaborators of the token path.
        authenticator: who asks.
        gate: counts what is in flight, and says no while draining.
        slots: counts what is open.
    """

    def __init__(
        self, stage: Stage, authenticator: Authenticator, gate: Gate, slots: Slots
    ) -> None:
        self._stage = stage
        self._authenticator = authenticator
        self._gate = gate
        self._slots = slots

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            async with asyncio.timeout(self._patience_s):
                try:
                    await self._serve(scope, receive, send)
                except ApiError as error:
                    await send_error(send, error, path=scope["path"])
        except (ClientGoneError, TimeoutError):
            return

    @property
    def _patience_s(self) -> float:
        config = self._stage.config
        return config.first_content_s + config.body_idle_s + config.send_stall_s

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        stage, config = self._stage, self._stage.config
        with self._gate.entered(), stage.spans.request(scope):
            with stage.spans.step("gateway.auth"):
                key = await self._authenticator.authenticate(presented(scope))
            body = await read_body(
                scope, receive, limit=MAX_REQUEST_BYTES, idle_s=config.body_idle_s
            )
            route, machine = read_route(scope["headers"], self_route_only=key.self_route_only)
            catalog = stage.shelf.catalog
            if catalog is None:
                raise unavailable("the model catalog is not here yet")
            try:
                asked = parse_offer_request(body)
            except MalformedError as error:
                raise bad_request(f"the offer cannot be made: {error}", param=error.field) from None
            plan = plan_offer(
                asked,
                key,
                catalog,
                stage.tiers,
                default_bound=config.default_output_bound,
                max_body_bytes=config.max_body_bytes,
                now=stage.clock.now(),
                route=route,
                machine=machine,
            )
            slot = new_id("slot", stage.entropy(16))
            renew = partial(self._slots.keep, plan.account_id, slot, SEARCH_S)
            search = Search(stage, key, asked, plan, slot, renew)
            answer = await self._hunt(search, plan.account_id, slot, receive)
        await send_json(send, 200, answer, [*search.headers, *_NO_STORE])

    async def _hunt(self, search: Search, account_id: str, slot: str, receive: Receive) -> bytes:
        """Search within a slot; from the offer on, the slot lives as long as the offer."""
        await self._slots.take(account_id, slot, SEARCH_S)
        try:
            async with Presence(receive, search.mailbox):
                answer = await search.run()
        except BaseException:
            await self._slots.free(account_id, slot)
            raise
        await self._slots.keep(account_id, slot, MAX_RESERVE_MS / 1000 + GRACE_S)
        return answer
