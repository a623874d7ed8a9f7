"""The eligibility gates, in the order of routing section 2: one chain to choose and to explain.

`first_gate` is the truth, for preflight, dispatch, queue and alternates alike. `standing` is its
part that only a provider's state decides: it is judged when that state changes, and kept as the
key of a group of candidates (`groups`). `group_gate` adds what a request asks of a whole group.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto

from darkbloom_router import conditions as on
from darkbloom_router.admission import requirement_gb, room, too_large
from darkbloom_router.conditions import View
from darkbloom_router.groups import GroupKey
from darkbloom_router.model import Demand, Gate, Rules, SlotState, Thermal
from darkbloom_router.provider import Candidate, Lack


class Kind(Enum):
    """What sort of obstacle a gate is."""

    POLICY = auto()
    REQUEST = auto()
    STRUCTURAL = auto()
    FAULT = auto()
    CAPACITY = auto()
    LIVENESS = auto()
    TRUST = auto()
    CAPABILITY = auto()
    SLOT = auto()
    PERMANENT = auto()
    DEADLINE = auto()


@dataclass(frozen=True, slots=True)
class Check:
    """One gate: when it shuts, what was compared, and what the owner can do."""

    gate: Gate
    kind: Kind
    fails: Callable[[Candidate, View], bool]
    evidence: Callable[[Candidate, View], str]
    remedy: str


CHAIN: tuple[Check, ...] = (
    Check(
        Gate.ALLOWLIST,
        Kind.POLICY,
        on.not_listed,
        lambda c, v: (
            "the request names other machines"
            if v.demand.serials and c.provider.serial not in v.demand.serials
            else "the request wants only its owner's machines"
        ),
        "send without self-route, or link this machine to the account",
    ),
    Check(
        Gate.EXCLUDED,
        Kind.REQUEST,
        lambda c, v: c.provider in v.excluded,
        lambda _c, _v: "failed or refused this request before",
        "nothing: other requests still come",
    ),
    Check(
        Gate.NOT_SERVING_MODEL,
        Kind.STRUCTURAL,
        lambda c, _v: c.facts.weight_hash not in c.build.accepted_hashes,
        lambda _c, _v: "weight hash is not one of the catalog's",
        "download the build again",
    ),
    Check(
        Gate.DEDICATED,
        Kind.POLICY,
        on.shares,
        lambda c, v: (
            f"{on.dedicated_family(c, v.rules)} wants a machine of its own, "
            f"this one serves {len(c.provider.candidates)} builds"
        ),
        "serve this family alone, or only other builds",
    ),
    Check(
        Gate.DISPATCH_LOAD_COOLDOWN,
        Kind.FAULT,
        lambda c, v: on.held(c, lambda pair: pair.load_until, v) > 0,
        lambda c, v: on.sentence(
            c.pair.load_until if c.pair else 0.0, v.now, "loading for a request failed"
        ),
        "free memory, or see the agent's log for the failed load",
    ),
    Check(
        Gate.ERROR_COOLDOWN,
        Kind.FAULT,
        lambda c, v: on.held(c, on.errors_until(v), v) > 0,
        lambda c, v: on.sentence(
            v.now + on.held(c, on.errors_until(v), v), v.now, "failed twice within a minute"
        ),
        "see the agent's log; requests come again by themselves",
    ),
    Check(
        Gate.CAPACITY_COOLDOWN,
        Kind.CAPACITY,
        lambda c, v: bool(on.cooling(c, v)),
        on.cooling,
        "close other programs: it refuses requests that its numbers promise to take",
    ),
    Check(
        Gate.BREAKER,
        Kind.FAULT,
        on.broken,
        lambda c, v: on.node_evidence(c, v, ejection=False),
        "see the agent's log and run darkbloom doctor",
    ),
    Check(
        Gate.EJECTION,
        Kind.FAULT,
        on.ejected,
        lambda c, v: on.node_evidence(c, v, ejection=True),
        "see the agent's log and run darkbloom doctor; restart the agent",
    ),
    Check(
        Gate.OFFLINE,
        Kind.LIVENESS,
        lambda c, _v: not c.provider.connected or c.provider.status == "draining",
        lambda c, _v: "the stream is draining" if c.provider.connected else "the stream is gone",
        "start the agent, or let the drain finish",
    ),
    Check(
        Gate.UNTRUSTED,
        Kind.TRUST,
        lambda c, _v: bool(c.provider.untrusted),
        lambda c, _v: f"untrusted: {c.provider.untrusted}",
        "restart the agent; if it repeats, run darkbloom doctor",
    ),
    Check(
        Gate.STATE_RESTORING,
        Kind.LIVENESS,
        lambda c, _v: c.provider.restoring,
        lambda _c, _v: "the account of this machine has not been read yet",
        "wait: it is asked for every few seconds",
    ),
    Check(
        Gate.PRIVATE_ONLY,
        Kind.POLICY,
        lambda c, v: c.provider.owner_only and not on.owns(c, v.demand),
        lambda c, _v: (
            "set to serve its owner only"
            if c.provider.private_only
            else "admitted for its owner only"
        ),
        "turn private_only off, or earn public admission",
    ),
    Check(
        Gate.UNLINKED,
        Kind.POLICY,
        lambda c, _v: not c.provider.account_id,
        lambda _c, _v: "linked to no account, so nobody could be paid",
        "log in with darkbloom login",
    ),
    Check(
        Gate.TRUST_FLOOR,
        Kind.TRUST,
        lambda c, v: on.effective_level(c, v.rules) < on.floor_of(c, v),
        lambda c, v: f"level {c.provider.level.word}, floor {on.floor_of(c, v).word}",
        "earn the level: see darkbloom doctor",
    ),
    Check(
        Gate.RUNTIME_UNVERIFIED,
        Kind.TRUST,
        lambda c, v: not c.provider.runtime_verified or on.old_runtime(c, v.rules),
        lambda c, v: (
            f"version below {v.rules.min_version}"
            if on.old_runtime(c, v.rules)
            else "code release is not blessed"
        ),
        "update the agent",
    ),
    Check(
        Gate.PRIVATE_TEXT,
        Kind.TRUST,
        lambda c, v: bool(on.missing_for_private_text(c, v)),
        on.missing_for_private_text,
        "update the agent and use the built-in engine",
    ),
    Check(
        Gate.CHALLENGE_STALE,
        Kind.TRUST,
        lambda c, v: on.trusted_until(c, v.rules) <= v.now,
        on.passed_ago,
        "wait for the next challenge; check the network if it stays",
    ),
    Check(
        Gate.TRAIT_FLOOR,
        Kind.CAPABILITY,
        lambda c, v: bool(on.short_of(c, v)),
        on.short_of,
        "update the agent, or serve another build",
    ),
    Check(
        Gate.VISION,
        Kind.CAPABILITY,
        lambda c, v: v.demand.vision and not c.facts.vision,
        lambda _c, _v: "the request has media and this build reads text",
        "serve a vision build",
    ),
    Check(
        Gate.SLOT_CRASHED,
        Kind.SLOT,
        lambda c, _v: c.slot_state is SlotState.CRASHED,
        lambda _c, _v: "the engine of this build crashed",
        "restart the agent; see its log",
    ),
    Check(
        Gate.SLOT_RELOADING,
        Kind.SLOT,
        lambda c, _v: c.slot_state is SlotState.RELOADING,
        lambda _c, _v: "the engine of this build is reloading",
        "wait",
    ),
    Check(
        Gate.NO_HEADROOM,
        Kind.CAPACITY,
        on.no_headroom,
        on.headroom,
        "nothing: the machine is busy and earning",
    ),
    Check(
        Gate.THERMAL_CRITICAL,
        Kind.SLOT,
        lambda c, _v: c.thermal is Thermal.CRITICAL,
        lambda _c, _v: "thermal state is critical",
        "cool the machine",
    ),
    Check(
        Gate.MODEL_TOO_LARGE,
        Kind.PERMANENT,
        lambda c, _v: too_large(c),
        lambda c, _v: f"{c.provider.memory_gb:.0f} GB of memory, {requirement_gb(c):.0f} needed",
        "serve a smaller build",
    ),
    Check(
        Gate.FREE_MEMORY,
        Kind.CAPACITY,
        lambda c, v: room(c, v.now) < v.demand.tokens,
        on.room_evidence,
        "close other programs, or wait for running requests",
    ),
    Check(
        Gate.TTFT_CEILING,
        Kind.DEADLINE,
        on.late,
        on.lateness,
        "nothing: this request is in a hurry",
    ),
)

ORDER = {check.gate: place for place, check in enumerate(CHAIN)}
KINDS = {check.gate: check.kind for check in CHAIN}
SICK = frozenset({Gate.BREAKER, Gate.EJECTION})
_PER_GROUP = (
    Gate.ERROR_COOLDOWN,
    Gate.PRIVATE_ONLY,
    Gate.TRUST_FLOOR,
    Gate.TRAIT_FLOOR,
    Gate.VISION,
)
_PER_REQUEST = frozenset({*_PER_GROUP, Gate.ALLOWLIST, Gate.EXCLUDED, Gate.TTFT_CEILING}) - {
    Gate.TRAIT_FLOOR
}
_STATE = tuple(check for check in CHAIN if check.gate not in _PER_REQUEST)
_OF_FAULTS = SICK | {
    Gate.DISPATCH_LOAD_COOLDOWN,
    Gate.ERROR_COOLDOWN,
    Gate.CAPACITY_COOLDOWN,
}
_FAULTLESS = tuple(check for check in CHAIN if check.gate not in _OF_FAULTS)
"""The chain of a machine that nothing is held against: nothing of it can be shut by faults."""
_LASTING = tuple(check for check in _STATE if ORDER[check.gate] < ORDER[Gate.SLOT_CRASHED])
"""Those that attempts and measurements do not move, unless something is held against a machine."""
_VISION = Lack.VISION.value
_NEUTRAL = Demand(build="", output_bound=1)
"""The least that any request asks: what it cannot have, nobody can."""
_LEAST_TOKENS = _NEUTRAL.tokens


def failing(candidate: Candidate, view: View) -> Iterator[Check]:
    """Yield every gate that is shut, in order."""
    return (check for check in CHAIN if check.fails(candidate, view))


def first_gate(candidate: Candidate, view: View) -> Gate:
    """Return the first gate that is shut, or `Gate.ELIGIBLE`."""
    for check in CHAIN if candidate.provider.faults is not None else _FAULTLESS:
        if check.fails(candidate, view):
            return check.gate
    return Gate.ELIGIBLE


def lasting(candidate: Candidate, rules: Rules, now: float) -> GroupKey:
    """Return what the gates above the slot's say about a candidate, before a request is known."""
    view = View(_NEUTRAL, rules, now)
    gate = gate_sick = Gate.ELIGIBLE
    for check in _LASTING:
        if check.fails(candidate, view):
            gate = gate or check.gate
            if check.gate not in SICK:
                gate_sick = check.gate
                break
    pair = candidate.pair
    return GroupKey(
        gate=gate.value,
        gate_sick=gate_sick.value,
        level=on.effective_level(candidate, rules).value,
        owner_only=candidate.provider.owner_only,
        lacks=on.lacks(candidate),
        cooling=pair.error_shapes(now) if pair else 0,
    )


def standing(candidate: Candidate, lasts: GroupKey) -> GroupKey:
    """Return the same with the gates of slot, places and room added, from prepared numbers.

    Attempts come and go far more often than the rest changes.

    Args:
        candidate: With its `room` up to date.
        lasts: What `lasting` said of it.
    """
    if lasts.gate_sick:
        return lasts
    gate = _by_slot(candidate)
    if not gate:
        return lasts
    first = lasts.gate or gate
    return GroupKey(first, gate, lasts.level, lasts.owner_only, lasts.lacks, lasts.cooling)


def _by_slot(candidate: Candidate) -> int:
    """Return the first of the chain's last gates that is shut; the same questions, in its order."""
    state = candidate.state
    if state is SlotState.CRASHED:
        return Gate.SLOT_CRASHED.value
    if state is SlotState.RELOADING:
        return Gate.SLOT_RELOADING.value
    provider = candidate.provider
    if provider.inflight >= candidate.machine_cap or candidate.occupancy >= candidate.cap:
        return Gate.NO_HEADROOM.value
    if provider.beat.thermal is Thermal.CRITICAL:
        return Gate.THERMAL_CRITICAL.value
    if candidate.oversized:
        return Gate.MODEL_TOO_LARGE.value
    return Gate.FREE_MEMORY.value if candidate.room < _LEAST_TOKENS else Gate.ELIGIBLE.value


def group_gate(key: GroupKey, view: View, floor: int, wanted: int) -> Gate:
    """Return the first gate that shuts for a whole group of strangers' machines.

    Args:
        key: The group.
        view: The request, the rules and the time.
        floor: Trust floor that holds for strangers' machines.
        wanted: Abilities that the request needs, which are its shape as well.
    """
    missing = key.lacks & wanted
    by_state = Gate(key.gate_sick if view.open_sick else key.gate)
    shut = (
        key.cooling >> wanted & 1,
        key.owner_only,
        key.level < floor,
        missing & ~_VISION,
        missing & _VISION,
    )
    if not any(shut):
        return by_state
    first = next(gate for gate, failed in zip(_PER_GROUP, shut, strict=True) if failed)
    if by_state is Gate.ELIGIBLE or ORDER[first] < ORDER[by_state]:
        return first
    return by_state


def next_change(candidate: Candidate, rules: Rules, now: float) -> float:
    """Return when the passing of time alone changes what the gates say of a candidate."""
    provider, pair = candidate.provider, candidate.pair
    times = [on.trusted_until(candidate, rules)]
    if provider.draining:
        times.append(provider.drain_until)
    if provider.faults is not None:
        node = provider.faults.node
        times += (node.breaker.until, node.ejection.until)
    found = min((when for when in times if when > now), default=float("inf"))
    return min(found, pair.next_change(now)) if pair else found
