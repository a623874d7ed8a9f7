"""What a channel asks again by itself, over real loopback gRPC."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from darkbloom.common.v1.page_pb2 import PageRequest
from darkbloom_mesh.callers import MATRIX, flat
from darkbloom_mesh.channel import channel
from darkbloom_mesh.config import Secret
from darkbloom_mesh.errors import ConflictError, MeshError, UnavailableError
from darkbloom_mesh.interceptors import CallGuard
from darkbloom_mesh.repeating import REPEATED
from darkbloom_mesh.testing import serve_ephemeral

TOKEN = Secret("t" * 40)
LEDGER = "darkbloom.billing.v1.LedgerService"


class Room:
    """Fails so many calls before it answers."""

    def __init__(self, failures: int, error: Callable[[str], MeshError]) -> None:
        self.asked = 0
        self._failures = failures
        self._error = error

    async def answer(self, request: PageRequest, _context: Any) -> PageRequest:
        self.asked += 1
        if self.asked <= self._failures:
            raise self._error("not now")
        return request

    def register(self, server: grpc.aio.Server) -> None:
        handler = grpc.unary_unary_rpc_method_handler(
            self.answer, PageRequest.FromString, PageRequest.SerializeToString
        )
        generic = grpc.method_handlers_generic_handler(
            LEDGER, {"Hold": handler, "SettleHolds": handler}
        )
        server.add_generic_rpc_handlers((generic,))


@asynccontextmanager
async def asking(room: Room) -> AsyncIterator[Callable[[str], Any]]:
    guard = CallGuard(mesh_token=TOKEN.reveal(), metrics=None)
    async with (
        serve_ephemeral(room.register, interceptors=[guard]) as target,
        channel(target, mesh_token=TOKEN, room="test") as opened,
    ):

        def ask(method: str) -> Any:
            call = opened.unary_unary(
                f"/{LEDGER}/{method}",
                request_serializer=PageRequest.SerializeToString,
                response_deserializer=PageRequest.FromString,
            )
            return call(PageRequest(page_size=3), timeout=10)

        yield ask


async def test_a_hold_is_asked_for_again_where_billing_cannot_be_reached_for_a_moment() -> None:
    room = Room(2, UnavailableError)
    async with asking(room) as ask:
        assert (await ask("Hold")).page_size == 3
    assert room.asked == 3


async def test_a_room_that_stays_away_is_asked_four_times() -> None:
    room = Room(100, UnavailableError)
    async with asking(room) as ask:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ask("Hold")
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert room.asked == 4


@pytest.mark.parametrize(
    ("method", "error"), [("SettleHolds", UnavailableError), ("Hold", ConflictError)]
)
async def test_what_its_owner_repeats_and_what_was_refused_is_asked_once(
    method: str, error: Callable[[str], MeshError]
) -> None:
    room = Room(1, error)
    async with asking(room) as ask:
        with pytest.raises(grpc.aio.AioRpcError):
            await ask(method)
    assert room.asked == 1


async def test_repeats_stop_where_most_calls_fail() -> None:
    room = Room(1_000, UnavailableError)
    calls = 60
    async with asking(room) as ask:
        ends = await asyncio.gather(*(ask("Hold") for _ in range(calls)), return_exceptions=True)
    assert all(isinstance(end, grpc.aio.AioRpcError) for end in ends)
    assert calls < room.asked < 3 * calls


def test_whatever_is_repeated_is_a_method_that_somebody_may_call() -> None:
    known = flat(MATRIX)
    for service, methods in REPEATED.items():
        for method in methods.split():
            assert known[f"/{service}/{method}"]
