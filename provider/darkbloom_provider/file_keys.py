"""Every key of `provider.toml`: which setting it fills, and which keys of others are retired.

A new setting is one field of `ProviderConfig` and one line here; type and bounds are the field's.
"""

from dataclasses import dataclass
from typing import Final

CONFIG_VERSION: Final = 1
"""Stamped into each file that we write; dates it for later migrations."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the file."""

    path: str
    """`table.key`."""
    field: str
    """Field of `ProviderConfig`, and by it the variable that wins over the file."""


KEYS: Final = (
    Key("provider.name", "name"),
    Key("provider.memory_reserve_gb", "memory_reserve_gb"),
    Key("provider.auto_update", "auto_update"),
    Key("provider.auto_restart", "auto_restart"),
    Key("provider.update_jitter_seconds", "update_jitter_seconds"),
    Key("provider.release_keys_file", "release_keys_file"),
    Key("backend.engine", "engine"),
    Key("backend.models_dir", "models_dir"),
    Key("backend.enabled_models", "models"),
    Key("backend.model_mirrors", "model_mirrors"),
    Key("backend.manifest_keys", "manifest_keys"),
    Key("backend.prefetch", "prefetch"),
    Key("backend.exchange_jitter_secs", "exchange_jitter_s"),
    Key("backend.hugging_face_url", "hugging_face_url"),
    Key("backend.s3_endpoint", "s3_endpoint"),
    Key("backend.s3_region", "s3_region"),
    Key("backend.idle_timeout_mins", "idle_timeout_mins"),
    Key("backend.max_model_slots", "max_model_slots"),
    Key("backend.max_concurrent", "max_concurrency"),
    Key("backend.kv_budget_gb", "kv_budget_gb"),
    Key("backend.startup_preload", "startup_preload"),
    Key("backend.preload_models", "preload_models"),
    Key("backend.startup_preload_timeout_secs", "startup_preload_timeout_secs"),
    Key("backend.startup_selftest", "startup_selftest"),
    Key("backend.startup_selftest_fail_closed", "startup_selftest_fail_closed"),
    Key("cache.memory_gb", "prefix_cache_memory_gb"),
    Key("cache.disk", "prefix_cache_disk"),
    Key("cache.disk_gb", "prefix_cache_disk_gb"),
    Key("cache.ttl_secs", "prefix_cache_ttl_secs"),
    Key("cache.dir", "prefix_cache_dir"),
    Key("coordinator.url", "coordinator"),
    Key("coordinator.ca_file", "coordinator_ca_file"),
    Key("coordinator.gateway", "gateway"),
    Key("coordinator.heartbeat_interval_secs", "heartbeat_interval_s"),
    Key("coordinator.private_only", "private_only"),
)

BY_PATH: Final = {key.path: key for key in KEYS}
BY_FIELD: Final = {key.field: key for key in KEYS}

SCHEDULE_ENABLED: Final = "schedule.enabled"
SCHEDULE_WINDOWS: Final = "schedule.windows"

RETIRED: Final = frozenset(
    {
        "backend.port",
        "backend.model",
        "backend.model_autopilot",
        "backend.mtp_mode",
        "backend.mtp_drafter_path",
        "backend.prefill_deadline_mode",
        "backend.engine_v2_max_concurrent",
        "backend.engine_v2_max_concurrent_by_model",
        "backend.engine_v2_kv_backend",
        "backend.engine_v2_kv_backend_by_model",
        "provider.wallet_address",
        "gemma_optimizations",
    }
)
"""Keys of older programs: they parse, change nothing, and are named once."""
