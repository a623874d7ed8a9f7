"""Starts crowds beside a running mesh."""

import asyncio
import sys
from collections.abc import Mapping

from darkbloom_local import seeds
from darkbloom_local.mesh import Mesh
from darkbloom_provider import identity

from tests.crowd.homes import home_of

_LINKS_AT_ONCE = 8


def crowd_names(count: int) -> tuple[str, ...]:
    """Return the process names of so many crowds."""
    return tuple(f"provider-crowd-{number}" for number in range(1, count + 1))


def crowd_programs(names: tuple[str, ...], each: int) -> Mapping[str, list[str]]:
    """Return what a mesh has to run under these names, for its `programs`."""
    return {name: [sys.executable, "-m", "tests.crowd", str(each)] for name in names}


async def join(mesh: Mesh, name: str, each: int) -> None:
    """Link the machines of one crowd to the account of providers and start it.

    Returns once each of them is registered.
    """
    root = mesh.state.directory(name)
    keys = [
        identity.load_or_create(home_of(root, number).identity_key).public for number in range(each)
    ]
    billing = mesh.channel("billing.grpc")
    for start in range(0, each, _LINKS_AT_ONCE):
        async with asyncio.TaskGroup() as links:
            for number, key in list(enumerate(keys))[start : start + _LINKS_AT_ONCE]:
                links.create_task(seeds.link_provider(billing, key, f"{name}-{number:03}"))
    await mesh._launcher.start_provider(mesh._provider(name, "scripted"))
