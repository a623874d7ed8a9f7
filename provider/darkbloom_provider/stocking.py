"""Wires what keeps a shift's models up to date, from the configuration."""

import secrets
from collections.abc import Callable
from functools import partial
from typing import Final

import psutil
from darkbloom_edge.memory import Memory, fits
from darkbloom_mesh.clock import Clock

from darkbloom_provider.config import ProviderConfig
from darkbloom_provider.engine.interface import Engine
from darkbloom_provider.engines import DEVELOPMENT_NAMESPACE
from darkbloom_provider.exchange import Exchange
from darkbloom_provider.fetchers import make_fetcher
from darkbloom_provider.inventory import Inventory
from darkbloom_provider.loads import Loads
from darkbloom_provider.models.download import Downloader
from darkbloom_provider.models.store import ModelStore
from darkbloom_provider.presentation import CAPABILITIES
from darkbloom_provider.stock import Rules, Stock

_GIB: Final = 1 << 30


def make_stock(
    config: ProviderConfig,
    store: ModelStore,
    inventory: Inventory,
    *,
    engine: Engine,
    loads: Loads,
    clock: Clock,
    changed: Callable[[], None],
) -> Stock:
    """Return a stock that downloads one file at a time: nobody waits for it."""
    uniform = secrets.SystemRandom().random
    exchange = Exchange(
        store=store,
        inventory=inventory,
        engine=engine,
        loads=loads,
        clock=clock,
        uniform=uniform,
        jitter_s=config.exchange_jitter_s,
        changed=changed,
    )
    return Stock(
        store=store,
        inventory=inventory,
        exchange=exchange,
        make_fetcher=partial(make_fetcher, config),
        downloader=Downloader(store=store, clock=clock, uniform=uniform, parallel=1),
        rules=Rules(
            prefetch=config.prefetch,
            serves=partial(_serves, config),
            fits=partial(can_fit, config),
            capabilities=CAPABILITIES,
        ),
        clock=clock,
    )


def can_fit(config: ProviderConfig, weight_bytes: int) -> bool:
    """Tell whether weights can ever be loaded here, on a machine that does nothing else."""
    if not weight_bytes:
        return True
    total = psutil.virtual_memory().total
    reserve = int(config.memory_reserve_gb * _GIB)
    return fits(weight_bytes, Memory(physical=total, available=total, reserve=reserve))


def _serves(config: ProviderConfig, build_id: str) -> bool:
    """Tell whether the owner wants a build of the store served, by this engine."""
    scripted = config.engine == "scripted"
    if build_id.startswith(DEVELOPMENT_NAMESPACE) != scripted:
        return False
    return not config.models or build_id in config.models
