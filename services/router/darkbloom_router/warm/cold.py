"""Who could load a build, why others cannot, and whom to ask first (routing section 14)."""

from collections import Counter
from collections.abc import Container
from enum import StrEnum
from heapq import nsmallest

from darkbloom_router.admission import requirement_gb
from darkbloom_router.conditions import View
from darkbloom_router.cost import static_tps
from darkbloom_router.gates import group_gate
from darkbloom_router.groups import BuildIndex
from darkbloom_router.model import Demand, Gate, Rules, Thermal, Tiering, TrustLevel
from darkbloom_router.provider import Candidate
from darkbloom_router.warm.pending import PendingLoads

BANDS_GB = (16, 24, 32, 48, 64, 96, 128, 192)
COMPARED = 1024
_HEAT = {Thermal.FAIR: 200.0, Thermal.SERIOUS: 800.0}


class Lacking(StrEnum):
    """Why a machine is not asked to load a build; a closed list."""

    OFFLINE = "offline_untrusted_private"
    PENDING = "pending_load_or_cooldown"
    NOT_IDLE = "not_idle"
    HOT = "thermal_critical"
    TRUST = "trust_or_runtime"
    CHALLENGE = "stale_challenge"
    NOT_SERVING = "not_serving_catalog"
    DEDICATED = "dedicated_excluded"
    TOO_LARGE = "model_too_large"
    NO_ROOM = "no_free_for_load"
    RESTORING = "state_restoring"


_BY_GATE = {
    Gate.ALLOWLIST: Lacking.OFFLINE,
    Gate.EXCLUDED: Lacking.OFFLINE,
    Gate.NOT_SERVING_MODEL: Lacking.NOT_SERVING,
    Gate.DEDICATED: Lacking.DEDICATED,
    Gate.DISPATCH_LOAD_COOLDOWN: Lacking.PENDING,
    Gate.ERROR_COOLDOWN: Lacking.PENDING,
    Gate.CAPACITY_COOLDOWN: Lacking.PENDING,
    Gate.BREAKER: Lacking.OFFLINE,
    Gate.EJECTION: Lacking.OFFLINE,
    Gate.OFFLINE: Lacking.OFFLINE,
    Gate.UNTRUSTED: Lacking.OFFLINE,
    Gate.STATE_RESTORING: Lacking.RESTORING,
    Gate.PRIVATE_ONLY: Lacking.OFFLINE,
    Gate.UNLINKED: Lacking.OFFLINE,
    Gate.TRUST_FLOOR: Lacking.TRUST,
    Gate.RUNTIME_UNVERIFIED: Lacking.TRUST,
    Gate.PRIVATE_TEXT: Lacking.TRUST,
    Gate.CHALLENGE_STALE: Lacking.CHALLENGE,
    Gate.TRAIT_FLOOR: Lacking.NOT_SERVING,
    Gate.VISION: Lacking.NOT_SERVING,
    Gate.SLOT_CRASHED: Lacking.PENDING,
    Gate.SLOT_RELOADING: Lacking.PENDING,
    Gate.NO_HEADROOM: Lacking.NOT_IDLE,
    Gate.THERMAL_CRITICAL: Lacking.HOT,
    Gate.MODEL_TOO_LARGE: Lacking.TOO_LARGE,
    Gate.FREE_MEMORY: Lacking.NO_ROOM,
    Gate.TTFT_CEILING: Lacking.NOT_IDLE,
}


def lacking(
    candidate: Candidate, gate: Gate, pending: PendingLoads, now: float, loading: Container[str]
) -> Lacking | None:
    """Return why a machine that does not hold a build is not asked to; None if it may be.

    Args:
        candidate: The machine.
        gate: What its group says of it to a stranger who asks for next to nothing.
        pending: Commands that stand.
        now: Monotonic seconds.
        loading: Providers that load something already.
    """
    provider = candidate.provider
    stands = pending.stands(provider.provider_id, candidate.build.build, now)
    if stands or provider.provider_id in loading:
        return Lacking.PENDING
    if gate is not Gate.ELIGIBLE:
        return _BY_GATE[gate]
    slots = provider.capacity.slots.values() if provider.capacity else ()
    if provider.inflight or any(slot.running + slot.waiting for slot in slots):
        return Lacking.NOT_IDLE
    free = free_gb(candidate)
    return Lacking.NO_ROOM if 0 < free < candidate.weights_gb else None


def find(
    index: BuildIndex, rules: Rules, pending: PendingLoads, now: float
) -> tuple[list[Candidate], Counter[Lacking]]:
    """Return who could load a build, and how many lack what; gates are asked once per group."""
    able: list[Candidate] = []
    reasons: Counter[Lacking] = Counter()
    loading = pending.loading(now)
    nobody = View(Demand(build="", output_bound=1, floor=TrustLevel.NONE), rules, now)
    for key, members in index.groups.items():
        gate = group_gate(key, nobody, rules.min_trust.value, wanted=0)
        for row in members:
            if row.slot_state.warm:
                continue
            why = lacking(row, gate, pending, now, loading)
            if why is None:
                able.append(row)
            else:
                reasons[why] += 1
    return able, reasons


def best(able: list[Candidate], rules: Rules, most: int) -> list[Candidate]:
    """Return the best machines to load a build, in order; of very many, the best of a sample."""
    if most <= 0:
        return []
    stride = max(1, len(able) // COMPARED)
    return nsmallest(most, able[::stride], key=lambda row: preference(row, rules))


def preference(candidate: Candidate, rules: Rules) -> tuple[int, float]:
    """Return a key that sorts the best machine first.

    The smallest that is quick enough goes first, so that large machines stay free for large builds.
    """
    band = 0
    if rules.tiering is Tiering.ENFORCE:
        quick = static_tps(candidate) >= rules.min_decode_tps or candidate.projected_tps >= (
            rules.min_decode_tps
        )
        band = band_of(candidate) if quick else len(BANDS_GB) + 1
    return band, -score(candidate)


def band_of(candidate: Candidate) -> int:
    """Return how much larger than needed a machine is, as one of a few bands."""
    surplus = candidate.provider.memory_gb - requirement_gb(candidate)
    return sum(surplus > edge for edge in BANDS_GB)


def score(candidate: Candidate) -> float:
    """Return how well a machine would do: room, pace, health."""
    beat = candidate.provider.beat
    pace = candidate.median_tps or static_tps(candidate)
    penalties = beat.pressure * 500 + beat.cpu * 100 + _HEAT.get(beat.thermal, 0.0)
    return free_gb(candidate) * 100 + pace * 10 - penalties


def free_gb(candidate: Candidate) -> float:
    """Return what the machine could give to weights; 0 is unknown."""
    capacity = candidate.provider.capacity
    if capacity is None:
        return 0.0
    if capacity.free_for_load_gb is not None:
        return capacity.free_for_load_gb
    return max(0.0, capacity.total_memory_gb - capacity.gpu_active_gb)
