"""Whether a build fits a machine: one published formula for loader, catalog and calculator.

    hard_cap      = min(0.90 x physical, physical - 2 GiB)
    free_for_load = max(0, min(physical - engine_use, os_available) - reserve - pending_loads)
    fits         <=> weights x 1.2 + activation + 1 GiB <= free_for_load

where `reserve` is the larger of the operator's reserve and `physical - hard_cap`; sizes in bytes.
`min_ram_gb` of a catalog entry is the smallest whole number of GiB for which an otherwise empty
machine fits, so catalog and loader cannot disagree.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Final

GIB: Final = 1 << 30

HARD_CAP_SHARE: Final = 0.90
HARD_CAP_HEADROOM_BYTES: Final = 2 * GIB
WEIGHT_PADDING: Final = 1.2
ACTIVATION_RESERVE_BYTES: Final = 11 * GIB // 2
MEASURED_ACTIVATION_BYTES: Final[Mapping[str, int]] = {"gpt-oss-20b": 7 * GIB // 2}
"""Measured reserves by build; every other build takes `ACTIVATION_RESERVE_BYTES`."""
MINIMUM_KV_BYTES: Final = GIB
MAX_SHARE_CONTEXT_TOKENS: Final = 131_072
"""A longer context counts as this when resident builds divide the KV budget."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What the machine has and uses now, in bytes."""

    physical: int
    available: int
    """What the operating system would still give."""
    engine_use: int = 0
    pending_loads: int = 0
    """Claims of loads that run now."""
    reserve: int = 0
    """What the operator keeps for himself."""


def hard_cap(physical: int) -> int:
    """Give the most that weights, KV and activations may use together."""
    return max(0, min(int(HARD_CAP_SHARE * physical), physical - HARD_CAP_HEADROOM_BYTES))


def free_for_load(memory: Memory) -> int:
    """Give the bytes that a new build may claim now."""
    reserve = max(memory.reserve, memory.physical - hard_cap(memory.physical))
    unused = min(memory.physical - memory.engine_use, memory.available)
    return max(0, unused - reserve - memory.pending_loads)


def resident_bytes(weight_bytes: int) -> int:
    """Estimate what weights occupy once loaded."""
    return math.ceil(weight_bytes * WEIGHT_PADDING)


def required_bytes(weight_bytes: int, activation_bytes: int = ACTIVATION_RESERVE_BYTES) -> int:
    """Give what must be free before a load begins."""
    return resident_bytes(weight_bytes) + activation_bytes + MINIMUM_KV_BYTES


def fits(
    weight_bytes: int, memory: Memory, activation_bytes: int = ACTIVATION_RESERVE_BYTES
) -> bool:
    """Tell whether a build may be loaded now."""
    return required_bytes(weight_bytes, activation_bytes) <= free_for_load(memory)


def min_ram_gb(weight_bytes: int, activation_bytes: int = ACTIVATION_RESERVE_BYTES) -> int:
    """Give the smallest machine, in whole GiB, that can hold the build alone."""
    required = required_bytes(weight_bytes, activation_bytes)
    by_share = math.ceil(required / HARD_CAP_SHARE / GIB)
    by_headroom = math.ceil((required + HARD_CAP_HEADROOM_BYTES) / GIB)
    ram = max(by_share, by_headroom)
    # Rounding of the share to whole bytes may cost the last one.
    return ram if hard_cap(ram * GIB) >= required else ram + 1


def kv_budget_bytes(
    physical: int, resident: int, activation_bytes: int = ACTIVATION_RESERVE_BYTES
) -> int:
    """Give what remains for KV once all weights are resident."""
    return max(0, hard_cap(physical) - resident - activation_bytes)


def kv_shares(budget_bytes: int, demands: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    """Divide the KV budget among resident builds.

    Args:
        budget_bytes: What there is.
        demands: Build to (KV bytes per token, context length in tokens).

    Returns:
        Bytes by build, in proportion to bytes per token x context; equal shares while any rate is
        unknown (zero).
    """
    weights = {
        build: rate * min(context, MAX_SHARE_CONTEXT_TOKENS)
        for build, (rate, context) in demands.items()
    }
    if not weights:
        return {}
    if not all(weights.values()):
        return dict.fromkeys(weights, budget_bytes // len(weights))
    total = sum(weights.values())
    return {build: budget_bytes * weight // total for build, weight in weights.items()}
