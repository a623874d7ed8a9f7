"""`darkbloom watchdog`: starts a crashed agent again; run by the service manager, not by people."""

import asyncio
from importlib import metadata
from typing import Annotated

import typer
from darkbloom_mesh import logs
from darkbloom_mesh.clock import SystemClock

from darkbloom_provider.cli import context
from darkbloom_provider.service.manager import manager_here
from darkbloom_provider.service.watchdog import Watchdog


def watchdog(
    once: Annotated[bool, typer.Option("--once", help="Look once and say what was done.")] = False,
) -> None:
    """Look every minute whether the agent runs; start it again five minutes after a crash.

    Only where it is wanted and `auto_restart` is on. Three restarts of a version within an hour
    are enough: then the owner is needed.
    """
    config = context.config()
    version = metadata.version("darkbloom-provider")
    logs.configure(room="watchdog", version=version, level=config.log_level)
    config.folders.create()
    dog = Watchdog(
        config.folders,
        manager_here(),
        SystemClock(),
        version=lambda: version,
        auto_restart=lambda: context.config().auto_restart,
    )
    if once:
        typer.echo(dog.look().value)
        return
    asyncio.run(dog.run())
