"""Asking until there is an answer: the one thing that every caller of billing must do."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc
from darkbloom_mesh.errors import MeshError, OverloadedError, UnavailableError

T = TypeVar("T")

_AGAIN = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
)
_WAIT_S = 0.02
_LONGEST_S = 60.0


async def answered(call: Callable[[], Awaitable[T]]) -> T:
    """Repeat a command with the same key until it is known what became of it.

    Raises:
        MeshError: It was refused.
        grpc.aio.AioRpcError: It was refused over the wire.
        TimeoutError: No answer in a minute.
    """
    async with asyncio.timeout(_LONGEST_S):
        while True:
            try:
                return await call()
            except (UnavailableError, OverloadedError):
                pass
            except grpc.aio.AioRpcError as error:
                if error.code() not in _AGAIN:
                    raise
            await asyncio.sleep(_WAIT_S)  # noqa: TID251 - the database is restarting


async def accepted(call: Callable[[], Awaitable[T]]) -> T | None:
    """As `answered`; None where the command was refused, which here is an outcome like others."""
    try:
        return await answered(call)
    except (MeshError, grpc.aio.AioRpcError) as error:
        if isinstance(error, grpc.aio.AioRpcError) and error.code() in {
            grpc.StatusCode.INTERNAL,
            grpc.StatusCode.UNKNOWN,
        }:
            raise
        return None
