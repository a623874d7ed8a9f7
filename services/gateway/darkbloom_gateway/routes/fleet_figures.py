"""Sums over the live public fleet: what a build can take, what a model is served by, in all."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from darkbloom.router.v1.fleet_pb2 import BuildCapacity, Provider
from darkbloom.router.v1.provider_link_pb2 import SLOT_STATE_RUNNING, Slot

ONLINE = "online"
_HARDWARE = "hardware"
_LEVELS = ("none", "self_signed", _HARDWARE)
"""Trust levels, lowest first."""
_TTFT_PROMPT_TOKENS = 500
"""The prompt for which a time to first token is estimated."""
_COLD_MS = 20_000
"""What loading a model adds."""
_KNOWN_FAMILY = 8
"""Most characters of a chip's family and tier that are shown."""


def online(fleet: Iterable[Provider]) -> list[Provider]:
    """Return the machines that take requests."""
    return [row for row in fleet if row.status == ONLINE]


def capacity_row(
    name: str, build: str, live: BuildCapacity, fleet: Sequence[Provider]
) -> dict[str, Any]:
    """Return what one model can take now.

    Args:
        name: what it is called.
        build: what the name stands for.
        live: the router's counts.
        fleet: machines that are online.
    """
    slots = [slot for row in fleet for slot in row.slots if slot.model == build]
    return {
        "id": name,
        "build": build,
        "ready": live.routable_providers > 0,
        "can_accept": live.can_accept,
        "routable_providers": live.routable_providers,
        "warm_providers": live.warm_providers,
        "running_providers": sum(slot.state == SLOT_STATE_RUNNING for slot in slots),
        "cold_providers": live.cold_providers,
        "active_requests": live.active_requests,
        "queued_requests": live.queued_requests,
        "aggregate_tps": _rounded(_finite(slot.observed_decode_tps) for slot in slots),
        "estimated_ttft_ms": _ttft_ms(live, slots),
        "token_budget_remaining": live.token_budget_remaining,
        "token_budget_total": live.token_budget_total,
    }


def serving(builds: Collection[str], fleet: Iterable[Provider]) -> dict[str, Any]:
    """Return who serves any of these builds, as the model list says it: machines, best trust."""
    rows = [row for row in fleet if any(model.id in builds for model in row.models)]
    attested = [row for row in rows if row.trust_level == _HARDWARE]
    best = max(
        (_LEVELS.index(row.trust_level) for row in rows if row.trust_level in _LEVELS), default=0
    )
    return {
        "provider_count": len(rows),
        "attested_providers": len(attested),
        "trust_level": _LEVELS[best],
    }


def totals(fleet: Sequence[Provider]) -> dict[str, Any]:
    """Return the hardware of all machines that are online."""
    hardware = [row.hardware for row in fleet]
    return {
        "active_providers": len(fleet),
        "total_gpu_cores": sum(one.gpu_cores for one in hardware),
        "total_cpu_cores": sum(one.cpu_cores_total for one in hardware),
        "total_memory_gb": _rounded(_finite(one.memory_gb) for one in hardware),
        "total_bandwidth_gbs": _rounded(_finite(one.memory_bandwidth_gbs) for one in hardware),
        "network_capacity_tps": _rounded(map(_decode_tps, fleet)),
    }


def machines(fleet: Iterable[Provider]) -> list[dict[str, Any]]:
    """Return each machine in a line; what it has served is its owner's to know."""
    return [
        {
            "id": row.provider_id,
            "chip": row.hardware.chip_name,
            "chip_family": row.hardware.chip_family[:_KNOWN_FAMILY],
            "chip_tier": row.hardware.chip_tier[:_KNOWN_FAMILY],
            "machine_model": row.hardware.machine_model,
            "memory_gb": _finite(row.hardware.memory_gb),
            "gpu_cores": row.hardware.gpu_cores,
            "cpu_cores": row.hardware.cpu_cores_total,
            "memory_bandwidth_gbs": _finite(row.hardware.memory_bandwidth_gbs),
            "status": row.status,
            "trust_level": row.trust_level,
            "decode_tps": _rounded((_decode_tps(row),)),
            "models": sorted(model.id for model in row.models),
            "current_model": _current(row.slots),
        }
        for row in sorted(fleet, key=lambda row: row.provider_id)
    ]


def models(fleet: Iterable[Provider]) -> list[dict[str, Any]]:
    """Return how many machines have each build."""
    counts: dict[str, int] = {}
    for row in fleet:
        for name in {model.id for model in row.models}:
            counts[name] = counts.get(name, 0) + 1
    return [{"id": name, "providers": count} for name, count in sorted(counts.items())]


def levels(fleet: Iterable[Provider]) -> Mapping[str, int]:
    """Return how many machines have each trust level."""
    counts = dict.fromkeys(_LEVELS, 0)
    for row in fleet:
        if row.trust_level in counts:
            counts[row.trust_level] += 1
    return counts


def _ttft_ms(live: BuildCapacity, slots: Iterable[Slot]) -> int | None:
    """Estimate the shortest time to a first token; None where nobody has measured anything."""
    measured = [slot for slot in slots if _finite(slot.observed_prefill_tps) > 0]
    if not measured:
        return None
    best = min(
        (_TTFT_PROMPT_TOKENS + slot.queued_token_budget) / slot.observed_prefill_tps
        for slot in measured
    )
    return int(best * 1000) + (0 if live.warm_providers else _COLD_MS)


def _decode_tps(row: Provider) -> float:
    return sum(_finite(slot.observed_decode_tps) for slot in row.slots)


def _current(slots: Iterable[Slot]) -> str | None:
    return next((slot.model for slot in slots if slot.state == SLOT_STATE_RUNNING), None)


def _finite(value: float) -> float:
    """Return what a machine said of itself, 0 where that is no quantity."""
    return value if math.isfinite(value) and value > 0 else 0.0


def _rounded(values: Iterable[float]) -> float:
    return round(sum(values), 1)
