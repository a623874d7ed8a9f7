"""A listener ends when it is told to, also when its connection is dead by then."""

import asyncio
from contextlib import asynccontextmanager

import asyncpg
import pytest
from darkbloom_mesh.errors import StoreUnavailableError
from darkbloom_mesh.postgres import Database


class DeadConnection:
    """Listens, and then fails at everything, as a connection to a killed server does."""

    def add_termination_listener(self, hook):
        self.hook = hook

    def remove_termination_listener(self, hook):
        raise asyncpg.InterfaceError("connection is closed")

    async def add_listener(self, channel, hook):
        pass

    async def remove_listener(self, channel, hook):
        raise asyncpg.InterfaceError("connection is closed")


class Pool:
    def __init__(self):
        self.connection = DeadConnection()

    @asynccontextmanager
    async def acquire(self, *, timeout):  # noqa: ASYNC109 - the driver's signature
        yield self.connection


async def test_a_cancelled_listener_ends_although_its_connection_is_dead():
    listening = asyncio.Event()
    task = asyncio.create_task(Database(Pool()).listen("news", listening.set))
    await listening.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_listener_that_loses_its_connection_says_that_the_store_is_away():
    pool, listening = Pool(), asyncio.Event()
    task = asyncio.create_task(Database(pool).listen("news", listening.set))
    await listening.wait()
    pool.connection.hook(pool.connection)

    with pytest.raises(StoreUnavailableError):
        await task
