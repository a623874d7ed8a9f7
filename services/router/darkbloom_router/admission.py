"""How much a machine may still take: token budgets, the shared pool, memory (routing section 7)."""

from math import ceil, floor

from darkbloom_router.model import Build, SlotReport
from darkbloom_router.provider import Candidate, Provider

KV_BYTES_PER_TOKEN = 400_000
COLD_MARGIN_GB = 4.0
COLD_WEIGHTS_FACTOR = 2.0
WAITING_BOUND = 256
ROW_DERATING = 0.39
UNLIMITED = float("inf")
_SAME = 1e-9


def ahead(candidate: Candidate, slot: SlotReport | None) -> int:
    """Return the tokens that were promised to others here, reported or only reserved by us.

    Args:
        candidate: Where.
        slot: Its report.
    """
    if slot is None:
        return candidate.pending_tokens
    if slot.budget_max > 0:
        reported = slot.budget_used + slot.budget_queued
    else:
        reported = slot.tokens_potential + slot.waiting * WAITING_BOUND
    return max(reported, candidate.pending_tokens)


def room(candidate: Candidate, now: float) -> float:
    """Return how many more tokens fit: by budget and pool where there are any, else by memory."""
    pair = candidate.pair
    if pair is not None and pair.no_room(now):
        return 0.0
    slot = candidate.slot
    if slot and slot.budget_max > 0:
        left = slot.budget_max - ahead(candidate, slot)
        if left <= 0:
            return 0.0
        return max(0.0, min(left, _pool_left(candidate)))
    if slot and slot.kv_bytes_per_token > 0:
        # It knows the size of a token and has no budget: it admits nothing.
        return 0.0
    return max(0.0, min(_memory_left(candidate), _pool_left(candidate)))


def requirement_gb(candidate: Candidate) -> float:
    """Return the memory that a machine needs to hold this build at all."""
    return candidate.build.min_ram_gb or candidate.weights_gb * COLD_WEIGHTS_FACTOR


def build_requirement_gb(build: Build) -> float:
    """Return the same as far as the catalog knows."""
    return build.min_ram_gb or build.size_bytes / 1e9 * COLD_WEIGHTS_FACTOR


def too_large(candidate: Candidate) -> bool:
    """Return whether a build that is not resident can never fit this machine."""
    if candidate.slot_state.warm:
        return False
    return 0 < candidate.provider.memory_gb < requirement_gb(candidate)


def quality_cap(solo_tps: float, floor_tps: float, overcommit: float, base_cap: int) -> int:
    """Return at how many rows each still decodes at the floor; 0 where the pace is unknown.

    Args:
        solo_tps: Decode rate of one row alone on this kind of machine.
        floor_tps: Pace that every row should keep.
        overcommit: Factor on the result; not every row decodes at every moment.
        base_cap: Rows that engine and machine allow anyway.
    """
    if solo_tps <= 0 or floor_tps <= 0 or overcommit <= 0:
        return 0
    rows = floor((solo_tps / floor_tps - 1) / ROW_DERATING + _SAME)
    return ceil(max(1, min(rows, base_cap)) * overcommit - _SAME)


def _pool_left(candidate: Candidate) -> float:
    """Return what the whole machine's budget leaves, in this build's tokens.

    The pool is the sum of the slots' grants, in bytes where every slot says how large a token is.
    Attempts of builds without a slot are charged as well: they will need theirs.
    """
    provider = candidate.provider
    slots = provider.capacity.slots if provider.capacity else {}
    granted = [slot for slot in slots.values() if slot.budget_max > 0]
    if not granted:
        return UNLIMITED
    in_bytes = True
    for slot in granted:
        if slot.kv_bytes_per_token <= 0:
            in_bytes = False
    left = 0.0
    for slot in granted:
        left += slot.budget_max * (slot.kv_bytes_per_token if in_bytes else 1)
    for name, other in provider.candidates.items():
        reported = slots.get(name)
        taken = ahead(other, reported)
        if taken:
            size = reported.kv_bytes_per_token if reported else 0
            left -= taken * ((size or KV_BYTES_PER_TOKEN) if in_bytes else 1)
    slot_here = slots.get(candidate.build.build)
    size_here = slot_here.kv_bytes_per_token if slot_here else 0
    return left / ((size_here or KV_BYTES_PER_TOKEN) if in_bytes else 1)


def _memory_left(candidate: Candidate) -> float:
    """Return how many tokens fit where no budget is reported."""
    provider, capacity = candidate.provider, candidate.provider.capacity
    if capacity is None or capacity.total_memory_gb <= 0:
        return UNLIMITED
    if candidate.slot_state.warm:
        free_gb = capacity.total_memory_gb - capacity.gpu_active_gb
    elif _busy(provider):
        free_gb = capacity.total_memory_gb - capacity.gpu_active_gb - candidate.weights_gb
    elif capacity.free_for_load_gb is not None:
        free_gb = capacity.free_for_load_gb - candidate.weights_gb
    else:
        free_gb = capacity.total_memory_gb - candidate.weights_gb - COLD_MARGIN_GB
    return free_gb * 1e9 / KV_BYTES_PER_TOKEN - provider.pending_tokens


def _busy(provider: Provider) -> bool:
    slots = provider.capacity.slots.values() if provider.capacity else ()
    return provider.inflight > 0 or any(slot.running + slot.waiting for slot in slots)
