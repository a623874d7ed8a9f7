"""A fresh world per test, or two of them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from darkbloom_mesh.config import Secret

from tests.component.router.harness import PATIENCE_S, World, world
from tests.component.router.pairs import Pair
from tests.stores import valkey


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def valkey_url() -> Iterator[str]:
    with valkey() as url:
        yield url


@pytest.fixture
async def pair(tmp_path: Path, valkey_url: str) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        worlds = []
        for name in ("holder", "asker"):
            folder = tmp_path / name
            folder.mkdir()
            made = world(folder, redis_url=Secret(valkey_url), replica=name)
            worlds.append(await stack.enter_async_context(made))
        found = Pair(*worlds)
        async with asyncio.timeout(3 * PATIENCE_S):
            await found.met()
        yield found
