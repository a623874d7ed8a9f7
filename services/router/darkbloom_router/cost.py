"""What a request would cost on a candidate, in milliseconds of added latency (routing section 5).

Every term is a latency, so they add up: a `Cost` always sums to its total. A lying heartbeat has
been clamped before it gets here, and every divisor has a floor.
"""

from dataclasses import astuple, dataclass
from math import sqrt

from darkbloom_router.model import Demand, SlotState, Thermal
from darkbloom_router.provider import Candidate

STATE_MS = {
    SlotState.RUNNING: 0.0,
    SlotState.IDLE: 0.0,
    SlotState.IDLE_SHUTDOWN: 20_000.0,
}
COLD_MS = 30_000.0
QUEUE_MS = 3_000.0
PENDING_MS = 750.0
PRESSURE_MS, CPU_MS, GPU_MS = 4_000.0, 1_500.0, 5_000.0
THERMAL_MS = {Thermal.FAIR: 2_000.0, Thermal.SERIOUS: 8_000.0}
ROW_DERATING = 0.39
PREFILL_PER_DECODE = 12.0
MAX_PREFILL_TPS = 20_000.0
MAX_DECODE_TPS = 500.0
LOAD_SHIFT = 16


@dataclass(frozen=True, slots=True)
class Cost:
    """Milliseconds, by cause."""

    state: float
    queue: float
    pending: float
    backlog: float
    request: float
    health: float

    @property
    def total(self) -> float:
        """Their sum."""
        return float(sum(astuple(self)))


def decode_tps(candidate: Candidate) -> float:
    """Return the effective decode rate, tokens per second, from 1 to 500.

    Measured when the slot reports it; else the square root of the memory bandwidth, derated by the
    rows that run already.
    """
    slot = candidate.slot
    if slot and slot.decode_tps > 0:
        return min(max(slot.decode_tps, 1.0), MAX_DECODE_TPS)
    solo = sqrt(candidate.provider.hardware.memory_bandwidth_gbs)
    running = max(slot.running if slot else 0, candidate.inflight)
    return min(max(solo / (1 + ROW_DERATING * running), 1.0), MAX_DECODE_TPS)


def prefill_tps(candidate: Candidate, decode: float) -> float:
    """Return the prefill rate, tokens per second: measured, else twelve times decode."""
    slot = candidate.slot
    rate = slot.prefill_tps if slot and slot.prefill_tps > 0 else decode * PREFILL_PER_DECODE
    return min(max(rate, 1.0), MAX_PREFILL_TPS)


def tokens_ahead(candidate: Candidate) -> int:
    """Return the tokens that were promised to others here, reported or only reserved by us."""
    slot = candidate.slot
    if slot is None:
        return candidate.pending_tokens
    if slot.budget_max > 0:
        reported = slot.budget_used + slot.budget_queued
    else:
        reported = slot.tokens_potential
    return max(reported, candidate.pending_tokens)


def health_ms(candidate: Candidate) -> float:
    """Return the price of a machine that is hot, full or busy with other things."""
    provider = candidate.provider
    beat, capacity = provider.beat, provider.capacity
    gpu = 0.0
    if capacity and capacity.total_memory_gb > 0:
        gpu = min(capacity.gpu_active_gb / capacity.total_memory_gb, 1.0)
    load = beat.pressure * PRESSURE_MS + beat.cpu * CPU_MS + gpu * GPU_MS
    return load + THERMAL_MS.get(beat.thermal, 0.0)


def cost(candidate: Candidate, demand: Demand) -> Cost:
    """Return the price of one request on one candidate, by cause."""
    slot = candidate.slot
    decode = decode_tps(candidate)
    reported = slot.running + slot.waiting if slot else 0
    return Cost(
        state=STATE_MS.get(candidate.slot_state, COLD_MS),
        queue=max(candidate.inflight, reported) * QUEUE_MS,
        pending=candidate.provider.inflight * PENDING_MS,
        backlog=tokens_ahead(candidate) / decode * 1000,
        request=demand.prompt_tokens / prefill_tps(candidate, decode) * 1000
        + demand.output_bound / decode * 1000,
        health=health_ms(candidate),
    )


def prepare(candidate: Candidate) -> None:
    """Store the price on the candidate, so that a scan only multiplies and adds."""
    decode = decode_tps(candidate)
    nothing = cost(candidate, Demand(build="", prompt_tokens=0, output_bound=0))
    candidate.fixed_ms = nothing.total
    candidate.prompt_ms = 1000 / prefill_tps(candidate, decode)
    candidate.output_ms = 1000 / decode
    candidate.load = candidate.inflight << LOAD_SHIFT | candidate.provider.inflight
