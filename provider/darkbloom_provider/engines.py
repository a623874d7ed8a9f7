"""Which models this agent serves, and with which engine."""

import asyncio
import secrets
from collections.abc import Iterable, Sequence

import psutil
import structlog
from darkbloom_edge.memory import Memory, kv_budget_bytes, resident_bytes
from darkbloom_mesh.clock import Clock

from darkbloom_provider.claims import Claims
from darkbloom_provider.config import MAX_MLX_CONCURRENCY, ProviderConfig
from darkbloom_provider.engine.arenas import limit_arenas
from darkbloom_provider.engine.batch import SelfTest
from darkbloom_provider.engine.errors import EngineError
from darkbloom_provider.engine.interface import Build, Engine
from darkbloom_provider.engine.prefix.cache import PrefixCache
from darkbloom_provider.engine.prefix.codec import Codec
from darkbloom_provider.engine.prefix.disk import SsdTier
from darkbloom_provider.engine.prefix.keys import CacheKeys, FileVault, KeyVault
from darkbloom_provider.engine.prefix.limits import limits_of
from darkbloom_provider.errors import ProviderError
from darkbloom_provider.inventory import Inventory
from darkbloom_provider.loads import Loads
from darkbloom_provider.mac.cache_key import EnclaveVault
from darkbloom_provider.mac.frameworks import Frameworks
from darkbloom_provider.models.errors import ModelError
from darkbloom_provider.models.store import ModelStore, StoredModel

DEVELOPMENT_NAMESPACE = "dev/"
"""Builds that only the scripted engine serves."""
_GIB = 1 << 30
_log = structlog.get_logger()
_CACHE_SHARE = 8
"""This part of the requests' memory keeps beginnings of prompts."""


def take_inventory(config: ProviderConfig) -> Inventory:
    """Pick the newest version of each wanted build and hash all of its bytes.

    Raises:
        ProviderError: a wanted build is missing or corrupt, or there is nothing to serve.
    """
    store = ModelStore(config.store_root)
    stored = _wanted(store, config)
    for one in stored:
        try:
            store.verify(one)
        except ModelError as error:
            raise ProviderError(
                f"{one.manifest.model_id} cannot be served, {error}",
                "run `darkbloom models verify`, then import it again",
            ) from error
    return Inventory(stored)


def make_engine(config: ProviderConfig, inventory: Inventory, clock: Clock) -> Engine:
    """Build the configured engine; heavy libraries are imported only here.

    Raises:
        ProviderError: the script is not valid, the libraries of the engine are not installed, or
            no memory is left for requests.
    """
    return (
        _scripted(config, clock) if config.engine == "scripted" else _mlx(config, inventory, clock)
    )


async def load_all(engine: Engine, builds: Iterable[Build]) -> None:
    """Load every build, one after the other.

    Raises:
        ProviderError: one of them cannot be loaded.
    """
    for build in builds:
        try:
            await engine.load(build)
        except EngineError as error:
            raise ProviderError(
                f"{build.build_id} cannot be loaded, {error}",
                "serve another build with --model, or import this one again",
            ) from error


async def preload(loads: Loads, builds: Sequence[Build], config: ProviderConfig) -> None:
    """Load what is served first, those that the owner names before the others.

    What is not ready in time is loaded when it is asked for.

    Raises:
        ProviderError: one of them cannot be loaded.
    """
    if not config.startup_preload:
        return
    wanted = config.preload_models
    order = sorted(
        (build.build_id for build in builds),
        key=lambda name: wanted.index(name) if name in wanted else len(wanted),
    )
    try:
        async with asyncio.timeout(config.startup_preload_timeout_secs):
            for name in order[: config.max_model_slots]:
                await loads.load(name)
    except TimeoutError:
        _log.warning("preload_timed_out", seconds=config.startup_preload_timeout_secs)
    except EngineError as error:
        raise ProviderError(
            f"{name} cannot be loaded, {error}",
            "serve another build with --model, or import this one again",
        ) from error


def claims_of(config: ProviderConfig) -> Claims | None:
    """Make what judges loads by the memory rule.

    Returns:
        None for engines without weights, in development, and where the owner has set the memory
        of requests himself: then his word counts.
    """
    own_word = config.kv_budget_gb is not None or config.environment == "development"
    if config.engine == "scripted" or own_word:
        return None
    reserve = int(config.memory_reserve_gb * _GIB)

    def memory(pending: int) -> Memory:
        now = psutil.virtual_memory()
        # What this process holds is among what the system would not give any more.
        return Memory(
            physical=now.total, available=now.available, reserve=reserve, pending_loads=pending
        )

    return Claims(memory)


def _scripted(config: ProviderConfig, clock: Clock) -> Engine:
    from darkbloom_provider.engine.scripted import MAX_LIVE, ScriptedEngine, parse_script

    try:
        script = parse_script(config.script)
    except EngineError as error:
        raise ProviderError(
            f"DARKBLOOM_PROVIDER_SCRIPT: {error}", "see `darkbloom_provider.engine.script`"
        ) from error
    return ScriptedEngine(
        script=script, clock=clock, max_concurrency=config.max_concurrency or MAX_LIVE
    )


def _mlx(config: ProviderConfig, inventory: Inventory, clock: Clock) -> Engine:
    from darkbloom_provider.engine.limits import EngineLimits
    from darkbloom_provider.engine.local import LocalEngine

    try:
        from darkbloom_provider.engine.mlx.loader import MlxLoader
    except ImportError as error:
        raise ProviderError(
            "the mlx engine is not installed", "install the provider with its extra `mlx`"
        ) from error
    limit_arenas()
    budget = _kv_budget(config, inventory)
    prefixes = prefix_cache(config, budget, clock)
    return LocalEngine(
        loader=MlxLoader(clock, prefixes, self_test=_self_test(config)),
        limits=EngineLimits(
            kv_budget_bytes=budget - (prefixes.memory.max_bytes if prefixes is not None else 0),
            max_concurrency=config.max_concurrency or MAX_MLX_CONCURRENCY,
        ),
        clock=clock,
        draw=secrets.randbits,
        prefixes=prefixes,
    )


def prefix_cache(config: ProviderConfig, budget: int, clock: Clock) -> PrefixCache | None:
    """Make the cache of prompts' beginnings; its memory is part of the requests' budget.

    Args:
        config: What the owner wants.
        budget: Bytes for running requests.
        clock: Ages of what is kept.
    """
    size = min(budget // _CACHE_SHARE, _GIB)
    if config.prefix_cache_memory_gb is not None:
        # Requests come first: whatever is asked for, half is theirs.
        size = min(int(config.prefix_cache_memory_gb * _GIB), budget // 2)
    if not config.prefix_cache_disk:
        return PrefixCache(size) if size else None
    from darkbloom_provider.engine.mlx.prefix import KvCodec, identity_here

    disk = ssd_tier(config, KvCodec(), clock)
    return PrefixCache(size, disk=disk, identity=identity_here()) if size or disk else None


def ssd_tier(config: ProviderConfig, codec: Codec, clock: Clock) -> SsdTier | None:
    """Make the tier on disk; None, with a word in the log, where its key cannot be had."""
    try:
        root = vault_of(config).root()
    except OSError as error:
        _log.warning("prefix_key_unusable", error_type=type(error).__name__)
        return None
    return SsdTier(
        config.prefix_cache_root,
        CacheKeys(root),
        codec,
        clock,
        limits=limits_of(budget_gb=config.prefix_cache_disk_gb, ttl_s=config.prefix_cache_ttl_secs),
    )


def vault_of(config: ProviderConfig) -> KeyVault:
    """Return where the root key of the tier on disk is kept: where the identity is kept."""
    home = config.folders
    if config.keychain_group is not None:
        return EnclaveVault(home.wrapped_cache_key, Frameworks.load, config.keychain_group)
    return FileVault(home.cache_key)


def _self_test(config: ProviderConfig) -> SelfTest:
    if not config.startup_selftest:
        return SelfTest.OFF
    return SelfTest.REFUSE if config.startup_selftest_fail_closed else SelfTest.WARN


def _kv_budget(config: ProviderConfig, inventory: Inventory) -> int:
    resident = sum(resident_bytes(model.size_bytes) for model in inventory.models)
    budget = kv_budget_bytes(psutil.virtual_memory().total, resident)
    if config.kv_budget_gb is not None:
        budget = int(config.kv_budget_gb * _GIB)
    if budget <= 0:
        raise ProviderError(
            "the models leave no memory for requests",
            "serve fewer with --model, or set DARKBLOOM_PROVIDER_KV_BUDGET_GB",
        )
    return budget


def _wanted(store: ModelStore, config: ProviderConfig) -> list[StoredModel]:
    scripted = config.engine == "scripted"
    newest = {
        one.manifest.model_id: one
        for one in store.served()
        if one.manifest.model_id.startswith(DEVELOPMENT_NAMESPACE) == scripted
    }
    if not config.models:
        if not newest:
            raise ProviderError(
                f"no model to serve in {store.root}",
                "import one: `darkbloom models import FILE.gguf --id ORG/NAME`",
            )
        return list(newest.values())
    missing = [name for name in config.models if name not in newest]
    if missing:
        raise ProviderError(
            f"not in the model store: {', '.join(missing)}",
            "`darkbloom models list` shows what is there; the scripted engine serves only `dev/`",
        )
    return [newest[name] for name in config.models]
