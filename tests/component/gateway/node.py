"""Node and its packages, where they are."""

import asyncio
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOM = Path(__file__).parents[2] / "node"
PACKAGES = ("openai", "@anthropic-ai/sdk")
_MOST_S = 100.0


def needed(*packages: str) -> None:
    """Skip a test by name where something that it needs is not here."""
    if shutil.which("node") is None:
        pytest.skip("no node on this machine")
    for package in packages:
        if not (ROOM / "node_modules" / package).is_dir():
            pytest.skip(f"no {package} in tests/node: make test-node installs it")


async def run(*arguments: str, environment: Mapping[str, str]) -> str:
    """Run node beside its packages and return what it printed."""
    program = shutil.which("node")
    assert program is not None
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        cwd=ROOM,
        env={"PATH": os.defpath, "NO_PROXY": "127.0.0.1", **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(_MOST_S):
        said, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return said.decode()
