"""What a request would cost on a candidate, in milliseconds of added latency (routing section 5).

Every term is a latency, so they add up: a `Cost` always sums to its total. A lying heartbeat has
been clamped before it gets here, and every divisor has a floor.
"""

from dataclasses import dataclass, replace
from math import sqrt

from darkbloom_router.admission import ROW_DERATING, ahead, requirement_gb
from darkbloom_router.faults.pair import RATE_MS
from darkbloom_router.model import Demand, SlotReport, SlotState, Thermal
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
PREFILL_PER_DECODE = 12.0
MAX_PREFILL_TPS = 20_000.0
MAX_DECODE_TPS = 500.0
SURPLUS_MS_PER_GB = 40.0
SURPLUS_SHARE = 0.25
LONG_PROMPT_TOKENS = 8192
SERVICE_OUTPUT_TOKENS = 256
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
    capacity_rate: float = 0.0
    size_tier: float = 0.0

    @property
    def total(self) -> float:
        """Their sum."""
        return (
            self.state
            + self.queue
            + self.pending
            + self.backlog
            + self.request
            + self.health
            + self.capacity_rate
            + self.size_tier
        )


def static_tps(candidate: Candidate) -> float:
    """Return the decode rate that the hardware suggests, for one row alone."""
    return max(sqrt(candidate.provider.hardware.memory_bandwidth_gbs), 1.0)


def decode_tps(candidate: Candidate) -> float:
    """Return the effective decode rate of one request, tokens per second, from 1 to 500.

    What the slot measured; else what machines of this kind measure; else what the hardware
    suggests, derated by the rows that run already.
    """
    return _decode_tps(candidate, candidate.slot)


def _decode_tps(candidate: Candidate, slot: SlotReport | None) -> float:
    if slot and slot.decode_tps > 0:
        rate = slot.decode_tps
    elif candidate.median_tps > 0:
        rate = candidate.median_tps
    else:
        running = max(slot.running if slot else 0, candidate.inflight)
        rate = static_tps(candidate) / (1 + ROW_DERATING * running)
    return min(max(rate, 1.0), MAX_DECODE_TPS)


def _projected_tps(candidate: Candidate, slot: SlotReport | None, decode: float) -> float:
    """Return the pace per request once one more runs here, from what it is now."""
    running = max(slot.running if slot else 0, candidate.inflight)
    derating = (1 + ROW_DERATING * running) / (1 + ROW_DERATING * (running + 1))
    return decode * derating


def prefill_tps(candidate: Candidate, decode: float) -> float:
    """Return the prefill rate, tokens per second: measured, else twelve times decode."""
    return _prefill_tps(candidate.slot, decode)


def _prefill_tps(slot: SlotReport | None, decode: float) -> float:
    rate = slot.prefill_tps if slot and slot.prefill_tps > 0 else decode * PREFILL_PER_DECODE
    return min(max(rate, 1.0), MAX_PREFILL_TPS)


def health_ms(candidate: Candidate) -> float:
    """Return the price of a machine that is hot, full or busy with other things."""
    provider = candidate.provider
    beat, capacity = provider.beat, provider.capacity
    gpu = 0.0
    if capacity and capacity.total_memory_gb > 0:
        gpu = min(capacity.gpu_active_gb / capacity.total_memory_gb, 1.0)
    load = beat.pressure * PRESSURE_MS + beat.cpu * CPU_MS + gpu * GPU_MS
    return load + THERMAL_MS.get(beat.thermal, 0.0)


def rate_ms(candidate: Candidate, now: float) -> float:
    """Return the price of a pair that often says it is full."""
    pair = candidate.pair
    return pair.rate(now) * RATE_MS if pair else 0.0


def surplus_ms(candidate: Candidate) -> float:
    """Return the price of a machine that could hold a larger build, before its limit."""
    needed = requirement_gb(candidate)
    if needed <= 0:
        return 0.0
    return max(0.0, candidate.provider.memory_gb - needed) * SURPLUS_MS_PER_GB


def tier_ms(candidate: Candidate, demand: Demand, rest_ms: float) -> float:
    """Return that price as charged: at most a quarter of the rest, nothing for a long prompt."""
    if demand.prompt_tokens >= LONG_PROMPT_TOKENS:
        return 0.0
    return min(candidate.surplus_ms, rest_ms * SURPLUS_SHARE)


def service_ms(candidate: Candidate, prompt_tokens: int, output_bound: int) -> tuple[float, float]:
    """Return the work of one request on a candidate: reading the prompt, and then writing."""
    slot = candidate.slot
    decode = _decode_tps(candidate, slot)
    written = min(output_bound, SERVICE_OUTPUT_TOKENS)
    reading = prompt_tokens / _prefill_tps(slot, decode) * 1000
    return reading, written / decode * 1000


def cost(candidate: Candidate, demand: Demand, now: float) -> Cost:
    """Return the price of one request on one candidate, by cause."""
    decode = decode_tps(candidate)
    parts = Cost(
        state=STATE_MS.get(candidate.slot_state, COLD_MS),
        queue=candidate.occupancy * QUEUE_MS,
        pending=candidate.provider.inflight * PENDING_MS,
        backlog=ahead(candidate, candidate.slot) / decode * 1000,
        request=demand.prompt_tokens / prefill_tps(candidate, decode) * 1000
        + demand.output_bound / decode * 1000,
        health=health_ms(candidate),
        capacity_rate=rate_ms(candidate, now),
    )
    tier = tier_ms(candidate, demand, parts.total)
    return replace(parts, size_tier=tier) if tier else parts


def measure(candidate: Candidate) -> None:
    """Store the terms of the price that attempts do not move."""
    candidate.state_ms = STATE_MS.get(candidate.slot_state, COLD_MS)
    candidate.health_ms = health_ms(candidate)


def prepare(candidate: Candidate, now: float) -> None:
    """Store the price on the candidate, so that a scan only multiplies and adds.

    Call after `measure`; this part is computed with every attempt that comes or goes.
    """
    provider, slot, inflight = candidate.provider, candidate.slot, candidate.inflight
    decode = _decode_tps(candidate, slot)
    occupancy = max(inflight, slot.running + slot.waiting) if slot else inflight
    candidate.rank_ms = (
        candidate.state_ms
        + occupancy * QUEUE_MS
        + provider.inflight * PENDING_MS
        + ahead(candidate, slot) / decode * 1000
        + candidate.health_ms
        + (rate_ms(candidate, now) if provider.faults is not None else 0.0)
    )
    candidate.prompt_ms = 1000 / _prefill_tps(slot, decode)
    candidate.output_ms = 1000 / decode
    candidate.projected_tps = _projected_tps(candidate, slot, decode)
    candidate.load = inflight << LOAD_SHIFT | provider.inflight
