"""`darkbloom watchdog`: starts a crashed agent again; run by the service manager, not by people."""

import asyncio
import secrets
from importlib import metadata
from typing import Annotated

import typer
from darkbloom_mesh import logs
from darkbloom_mesh.clock import SystemClock

from darkbloom_provider.cli import context
from darkbloom_provider.cli.background import background
from darkbloom_provider.errors import ProviderError
from darkbloom_provider.service.intent import read_intent
from darkbloom_provider.service.manager import manager_here
from darkbloom_provider.service.plan import PROVIDER_LABEL
from darkbloom_provider.service.watchdog import Watchdog
from darkbloom_provider.update.auto import DRAIN_S, AutoUpdate
from darkbloom_provider.update.deaths import Deaths
from darkbloom_provider.update.here import require_managed, updater_here
from darkbloom_provider.update.store import AppStore
from darkbloom_provider.update.updater import Updater


def watchdog(
    once: Annotated[bool, typer.Option("--once", help="Look once and say what was done.")] = False,
) -> None:
    """Look every minute whether the agent runs; start it again five minutes after a crash.

    Only where it is wanted and `auto_restart` is on. Three restarts of a version within an hour
    are enough: then the owner is needed. Updates come from here too, where `auto_update` is on.
    """
    config = context.config()
    installed = metadata.version("darkbloom-provider")
    logs.configure(room="watchdog", version=installed, level=config.log_level)
    config.folders.create()
    store = AppStore(config.folders.app)
    clock = SystemClock()
    dog = Watchdog(
        config.folders,
        manager_here(),
        clock,
        version=lambda: store.current or installed,
        auto_restart=lambda: context.config().auto_restart,
        witness=Deaths(store),
    )
    if once:
        typer.echo(dog.look().value)
        return
    updates = AutoUpdate(
        lambda: _updater(store),
        _restart,
        enabled=lambda: context.config().auto_update,
        jitter_s=float(config.update_jitter_seconds),
        uniform=secrets.SystemRandom().random,
        clock=clock,
    )

    async def run() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(dog.run(), name="watchdog")
            tasks.create_task(updates.run(), name="updates")

    asyncio.run(run())


def _updater(store: AppStore) -> Updater | None:
    """Return what updates this installation; None where it cannot be updated so."""
    try:
        require_managed(store)
        return updater_here(context.config(), lambda _step: None)
    except ProviderError:
        return None


def _restart() -> None:
    service = background()
    wanted = read_intent(service.home.intent).wanted == "running"
    if wanted and service.manager.installed(PROVIDER_LABEL):
        service.relaunch(timeout_s=DRAIN_S)
