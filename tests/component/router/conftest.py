"""A fresh world per test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.component.router.harness import World, world


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made
