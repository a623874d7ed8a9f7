"""When the first content would come from a candidate, and how far to believe it (section 6).

A forecast is linear in the prompt, so a scan of prepared numbers gives the same figure as the full
forecast. The breakdown sums to the total.
"""

from dataclasses import dataclass
from enum import StrEnum

from darkbloom_router.admission import ROW_DERATING
from darkbloom_router.cost import COLD_MS, STATE_MS, health_ms, rate_ms
from darkbloom_router.model import Demand
from darkbloom_router.provider import Candidate

BASE_MS, CAREFUL_BASE_MS = 150.0, 1000.0
CAREFUL_TOKENS = 33
CAPACITY_FRESH_S, MEASURED_FRESH_S = 5.0, 120.0
EXPLORE_AFTER_S = 300.0
_UNMEASURED = frozenset({"performance_missing", "performance_age_unknown_or_stale"})
PROMPT_MARGIN = 1.25
"""The upper bound of a prompt, as a multiple of its estimate, where the gateway names none."""


class Credence(StrEnum):
    """What a forecast is worth."""

    FEASIBLE = "feasible"
    UNKNOWN = "unknown"
    LATE = "predicted_late"


class Doubt(StrEnum):
    """Why a forecast is not believed; a closed list."""

    NONE = ""
    CAPACITY_MISSING = "capacity_missing"
    CAPACITY_STALE = "capacity_stale"
    CAPACITY_BEFORE_REFUSAL = "capacity_before_refusal"
    PERFORMANCE_MISSING = "performance_missing"
    PERFORMANCE_STALE = "performance_age_unknown_or_stale"
    VISION = "vision_work_unknown"
    LOAD = "load_work_unknown"
    COMPETING = "competing_work_unknown"
    PROMPT = "prompt_unknown"
    DEADLINE = "no_deadline"


@dataclass(frozen=True, slots=True)
class Forecast:
    """Milliseconds to the first content, by cause; what is expected and what is promised."""

    base: float
    load: float
    ahead: float
    prompt: float
    first_token: float
    health: float
    capacity_rate: float
    careful: float
    """Conservative time to visible content, never below the expected one."""
    credence: Credence
    doubt: Doubt

    @property
    def expected(self) -> float:
        """Expected time to the first content."""
        return self.base + self.load + self.ahead + self.prompt + self.first_token

    @property
    def total(self) -> float:
        """What the ranking compares: the expected time and the price of poor health."""
        return self.expected + self.health + self.capacity_rate


def load_ms(candidate: Candidate) -> float:
    """Return the time until the weights are resident: measured, else the state penalty."""
    slot = candidate.slot
    penalty = STATE_MS.get(candidate.slot_state, COLD_MS)
    return float(slot.load_ms) if penalty and slot and slot.load_ms > 0 else penalty


def doubt(candidate: Candidate, demand: Demand, now: float, left_ms: float | None) -> Doubt:
    """Return the first reason not to believe a forecast."""
    checks = (
        (Doubt.DEADLINE, left_ms is None),
        (Doubt.VISION, demand.vision),
        (Doubt.PROMPT, demand.prompt_tokens <= 0),
        (candidate.doubt, candidate.doubt not in ("", *_UNMEASURED)),
        (Doubt.CAPACITY_STALE, now - candidate.provider.capacity_at > CAPACITY_FRESH_S),
        (candidate.doubt, bool(candidate.doubt)),
        (Doubt.PERFORMANCE_STALE, now - measured_at(candidate) > MEASURED_FRESH_S),
    )
    return Doubt(next((reason for reason, holds in checks if holds), Doubt.NONE))


def credence(candidate: Candidate, demand: Demand, now: float, left_ms: float | None) -> Credence:
    """Return what a forecast is worth, from prepared numbers; a scan asks it of everybody."""
    if (
        not candidate.doubt
        and left_ms is not None
        and now - candidate.provider.capacity_at <= CAPACITY_FRESH_S
        and now - measured_at(candidate) <= MEASURED_FRESH_S
        and demand.prompt_tokens > 0
        and not demand.vision
    ):
        return Credence.FEASIBLE if careful_ms(candidate, demand) <= left_ms else Credence.LATE
    reason = doubt(candidate, demand, now, left_ms)
    if reason in _UNMEASURED and candidate.provider.inflight == 0:
        # Otherwise it could never earn any evidence.
        since = max(measured_at(candidate), candidate.provider.joined_at)
        if now - since >= EXPLORE_AFTER_S:
            return Credence.FEASIBLE
    return Credence.UNKNOWN


def careful_ms(candidate: Candidate, demand: Demand) -> float:
    """Return the conservative time to visible content, never below the expected one."""
    upper = demand.prompt_tokens * PROMPT_MARGIN
    if demand.prompt_bound:
        upper = min(upper, demand.prompt_bound)
    written = min(CAREFUL_TOKENS, demand.output_bound) * candidate.written_ms
    careful = CAREFUL_BASE_MS + candidate.start_ms + upper * candidate.token_ms + written
    expected = BASE_MS + candidate.start_ms + demand.prompt_tokens * candidate.token_ms
    return max(careful, expected + candidate.written_ms)


def measured_at(candidate: Candidate) -> float:
    """Return when its rates were last measured, by its own word or because they moved."""
    slot, provider = candidate.slot, candidate.provider
    if slot is not None and slot.stepped_ago_s is not None:
        return provider.capacity_at - slot.stepped_ago_s
    return candidate.measured_at


def forecast(
    candidate: Candidate, demand: Demand, now: float, left_ms: float | None = None
) -> Forecast:
    """Return the forecast of one request on one candidate.

    Args:
        candidate: Who would serve.
        demand: The request.
        now: Monotonic seconds.
        left_ms: Time left to the first content; None is without a deadline.
    """
    token_ms = candidate.token_ms
    load = load_ms(candidate)
    return Forecast(
        base=BASE_MS,
        load=load,
        ahead=candidate.start_ms - load,
        prompt=demand.prompt_tokens * token_ms,
        first_token=candidate.written_ms,
        health=health_ms(candidate),
        capacity_rate=rate_ms(candidate, now),
        careful=careful_ms(candidate, demand),
        credence=credence(candidate, demand, now, left_ms),
        doubt=doubt(candidate, demand, now, left_ms),
    )


def measure(candidate: Candidate) -> None:
    """Store the parts of forecasts that attempts do not move."""
    candidate.load_ms = load_ms(candidate)
    candidate.crowding = 1 + ROW_DERATING * _rows_elsewhere(candidate, waiting=False)
    candidate.rows_elsewhere = _rows_elsewhere(candidate, waiting=True)


def prepare(candidate: Candidate) -> None:
    """Store what forecasts are made of on the candidate; call after `cost.prepare`."""
    candidate.token_ms = candidate.prompt_ms * candidate.crowding
    candidate.written_ms = candidate.output_ms
    candidate.doubt = _standing_doubt(candidate)
    reads(candidate)


def reads(candidate: Candidate) -> None:
    """Store when a prompt would be begun: the part that the prompts ahead of it move."""
    candidate.start_ms = candidate.load_ms + candidate.pending_prompt * candidate.token_ms


def rank(candidate: Candidate, now: float) -> None:
    """Let decisions compare candidates by their forecast."""
    fixed = BASE_MS + candidate.start_ms + candidate.written_ms
    candidate.rank_ms = fixed + candidate.health_ms + rate_ms(candidate, now)
    candidate.prompt_ms = candidate.token_ms
    candidate.output_ms = 0.0


def _standing_doubt(candidate: Candidate) -> Doubt:
    """Return the doubt that neither time nor the request raises."""
    provider, slot, pair = candidate.provider, candidate.slot, candidate.pair
    if slot is None:
        return Doubt.CAPACITY_MISSING
    if not candidate.state.warm:
        return Doubt.LOAD
    if pair is not None and pair.refused_at > provider.capacity_at:
        return Doubt.CAPACITY_BEFORE_REFUSAL
    if _unreported_elsewhere(candidate):
        return Doubt.COMPETING
    measured = slot.decode_tps > 0 and slot.prefill_tps > 0
    return Doubt.NONE if measured else Doubt.PERFORMANCE_MISSING


def _unreported_elsewhere(candidate: Candidate) -> bool:
    """Return whether work of other builds is on its way that no capacity report shows yet."""
    elsewhere = candidate.provider.inflight - candidate.inflight
    return elsewhere > 0 and elsewhere > candidate.rows_elsewhere


def _rows_elsewhere(candidate: Candidate, *, waiting: bool) -> int:
    """Return the rows of other builds that the machine reports."""
    capacity = candidate.provider.capacity
    if capacity is None:
        return 0
    rows, here = 0, candidate.build.build
    for slot in capacity.slots.values():
        if slot.build != here:
            rows += slot.running + slot.waiting if waiting else slot.running
    return rows
