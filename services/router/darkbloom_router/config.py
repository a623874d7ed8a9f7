"""The router's configuration, from `DARKBLOOM_ROUTER_*`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from darkbloom_mesh.config import RoomConfig, Secret, Setting


@dataclass(frozen=True, kw_only=True)
class RouterConfig(RoomConfig):
    """What an operator may set."""

    public_listen: Annotated[
        str, Setting("host:port that provider agents dial; nothing else is served there")
    ] = "127.0.0.1:7410"
    internal_listen: Annotated[str, Setting("host:port of gateway lanes and fleet reads")] = (
        "127.0.0.1:7411"
    )
    attestation_target: Annotated[str, Setting("address of attestation")] = "127.0.0.1:7430"
    billing_target: Annotated[str, Setting("address of billing")] = "127.0.0.1:7420"
    registry_target: Annotated[str, Setting("address of the registry")] = "127.0.0.1:7440"
    replica: Annotated[str, Setting("name of this replica in logs and lanes")] = "router-0"
    redis_url: Annotated[
        Secret | None,
        Setting(
            "Valkey, where replicas find each other; unset: this one is alone", env="REDIS_URL"
        ),
    ] = None
    database_url: Annotated[
        Secret | None,
        Setting(
            "PostgreSQL; schema `routing` holds decision records; unset: none are kept",
            env="DATABASE_URL",
        ),
    ] = None
    record_days: Annotated[float, Setting("life of a decision record", minimum=0.1)] = 14.0
    advertise: Annotated[
        str,
        Setting("host:port at which other replicas reach the internal listener; empty: as bound"),
    ] = ""
    state_dir: Annotated[
        Path | None, Setting("where the last good catalog is kept; unset keeps none")
    ] = None
    min_trust: Annotated[
        Literal["none", "self_signed", "hardware"],
        Setting("lowest trust level of a public request; requests may ask for more"),
    ] = "hardware"
    min_version: Annotated[str, Setting("oldest agent version that is routed; empty is any")] = ""
    call_timeout_s: Annotated[float, Setting("of calls to neighbours", minimum=0.1)] = 5.0
    challenge_interval_s: Annotated[float, Setting("between challenges", minimum=1)] = 300.0
    challenge_max_age_s: Annotated[
        float, Setting("age at which a passed challenge is stale", minimum=1)
    ] = 960.0
    challenge_answer_s: Annotated[float, Setting("to answer a challenge", minimum=0.1)] = 30.0
    heartbeat_s: Annotated[float, Setting("between heartbeats", minimum=0.1)] = 5.0
    max_providers: Annotated[int, Setting("provider streams of this replica", minimum=1)] = 4096
    queue_depth: Annotated[
        int, Setting("requests that may wait per build; 0 follows its capacity", minimum=0)
    ] = 0
    queue_wait_s: Annotated[float, Setting("longest wait for a place", minimum=0)] = 120.0
    queue_before_shed: Annotated[
        bool, Setting("let requests wait for a place; false refuses them at once")
    ] = True
    warm_pool: Annotated[
        Literal["on", "observe", "off"],
        Setting("load builds where demand asks for it; `observe` only plans and tells"),
    ] = "on"
    min_warm: Annotated[
        tuple[str, ...], Setting("least machines that hold a build: `build=machines`")
    ] = ()
    reject_models: Annotated[tuple[str, ...], Setting("builds that take no requests for now")] = ()
    dedicated_models: Annotated[
        tuple[str, ...], Setting("model families that want machines of their own; `none` is none")
    ] = ("gemma-4",)
    selection: Annotated[
        Literal["cost", "first_content"], Setting("what a choice among machines minimises")
    ] = "cost"
    sample: Annotated[
        int, Setting("machines that one decision prices; 0 prices all", minimum=0)
    ] = 128
    ttft_ceiling: Annotated[bool, Setting("refuse where credible forecasts miss the deadline")] = (
        False
    )
    min_decode_tps: Annotated[
        float, Setting("pace that each request should keep, in tokens per second", minimum=0)
    ] = 15.0
    quality_overcommit: Annotated[
        float, Setting("factor on the cap that keeps that pace; 0 switches the cap off", minimum=0)
    ] = 1.2
    error_cooldown_s: Annotated[
        float, Setting("a build that failed twice in a minute rests; 0 never", minimum=0)
    ] = 300.0
    tiering: Annotated[
        Literal["off", "observe", "enforce"],
        Setting("keep small builds off large machines"),
    ] = "enforce"
    max_attempts: Annotated[int, Setting("attempts of one request", minimum=1)] = 64
    default_deadline_s: Annotated[
        float, Setting("ceiling to the first content, also where a request names more", minimum=1)
    ] = 180.0
    deadline_token_ms: Annotated[
        float, Setting("added to that ceiling for each token of the prompt", minimum=0)
    ] = 10.0
    hedging: Annotated[
        bool, Setting("make a second offer where the first machine is slow to begin")
    ] = True
    hedge_after_s: Annotated[
        float, Setting("latest moment of a second offer; 0: half of the deadline", minimum=0)
    ] = 0.0
    preamble_timeout_s: Annotated[
        float, Setting("from the first preamble to the first content", minimum=0.1)
    ] = 90.0
    accept_timeout_s: Annotated[float, Setting("to ACCEPTED", minimum=0.1)] = 10.0
    content_timeout_s: Annotated[
        float, Setting("from ACCEPTED to the first content", minimum=0.1)
    ] = 120.0
    silence_timeout_s: Annotated[float, Setting("between chunks", minimum=1)] = 600.0
    max_body_bytes: Annotated[int, Setting("of a sealed request", minimum=1024)] = 33_554_432
    break_settle_delay_s: Annotated[
        float, Setting("a broken attempt waits so long for its terminal", minimum=0)
    ] = 30.0
    hold_lease_s: Annotated[float, Setting("life of a hold", minimum=1, maximum=900)] = 900.0
    renew_interval_s: Annotated[float, Setting("between renewals of holds", minimum=1)] = 300.0
    rebalance_per_s: Annotated[
        float,
        Setting("idle providers that may be moved to emptier replicas; 0 moves none", minimum=0),
    ] = 5.0
    registrations_per_s: Annotated[
        float,
        Setting("machines let in a second, twice as many at once; 0 has no bound", minimum=0),
    ] = 50.0
    settlement_limit: Annotated[
        int, Setting("settlements kept while billing is away", minimum=1)
    ] = 65_536

    @property
    def rejected_models(self) -> frozenset[str]:
        """Builds that take no requests."""
        return frozenset(self.reject_models)

    @property
    def least_warm(self) -> tuple[tuple[str, int], ...]:
        """Least machines by build."""
        return tuple(
            (name, int(count))
            for name, _, count in (entry.rpartition("=") for entry in self.min_warm)
        )

    @property
    def dedicated_families(self) -> tuple[str, ...]:
        """Families that want machines of their own, in lower case."""
        words = tuple(word.lower() for word in self.dedicated_models)
        return () if words == ("none",) else words

    def problems(self) -> Iterator[str]:
        """Refuse values that contradict each other."""
        yield from super().problems()
        if self.environment == "production" and self.min_trust != "hardware":
            yield "DARKBLOOM_ROUTER_MIN_TRUST: must be hardware in production"
        for entry in self.min_warm:
            name, _, count = entry.rpartition("=")
            if not name or not count.isdecimal():
                yield "DARKBLOOM_ROUTER_MIN_WARM: entries read `build=machines`"
        if self.renew_interval_s >= self.hold_lease_s:
            yield "DARKBLOOM_ROUTER_RENEW_INTERVAL_S: must be below the lease of a hold"
