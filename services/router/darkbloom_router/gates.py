"""The eligibility gates, in the order of routing section 2: one chain to choose and to explain.

`first_gate` is the truth. `prepare` stores the outcome of the gates that no request can change on
the candidate, so that a scan skips most of the chain; whoever wins a scan is put through the whole
chain once more before anything is debited.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from darkbloom_router.cost import tokens_ahead
from darkbloom_router.model import (
    Admission,
    Demand,
    Gate,
    OwnerPolicy,
    Rules,
    SlotState,
    Thermal,
    TrustLevel,
)
from darkbloom_router.provider import Candidate, Lack, Provider
from darkbloom_router.versions import version_key

_KEY_BYTES = 32
_KV_BYTES_PER_TOKEN = 400_000
_COLD_MARGIN_GB = 4.0
_COLD_WEIGHTS_FACTOR = 2.0
UNLIMITED = float("inf")


@dataclass(frozen=True, slots=True)
class View:
    """What one evaluation compares a candidate with."""

    demand: Demand
    rules: Rules
    now: float
    excluded: Collection[object] = ()
    """Providers (objects) that failed or refused this request."""


@dataclass(frozen=True, slots=True)
class Check:
    """One gate: when it shuts, what was compared, and what the owner can do."""

    gate: Gate
    fails: Callable[[Candidate, View], bool]
    evidence: Callable[[Candidate, View], str]
    remedy: str


def owns(candidate: Candidate, demand: Demand) -> bool:
    """Return whether the request's account earns with this machine, and names no other."""
    return owned(candidate.provider, demand)


def owned(provider: Provider, demand: Demand) -> bool:
    """Return whether a machine is one of those that the caller may call his own here."""
    return provider.owned_by(demand.account_id) and demand.machine in ("", provider.provider_id)


def floor_of(candidate: Candidate, view: View) -> TrustLevel:
    """Return the floor that holds here: none for the caller's own machines under self-route."""
    demand = view.demand
    if demand.policy is not OwnerPolicy.PUBLIC and owns(candidate, demand):
        return TrustLevel.NONE
    return max(demand.floor, view.rules.min_trust)


def effective_level(candidate: Candidate, rules: Rules) -> TrustLevel:
    """Return the level as the floor sees it: development admission meets any, in development."""
    provider = candidate.provider
    if rules.development and provider.admission is Admission.DEVELOPMENT:
        return TrustLevel.HARDWARE
    return provider.level


def lacks(candidate: Candidate) -> int:
    """Return the abilities that this candidate does not have, as `Lack` bits."""
    found = Lack.NATIVE_MEDIA
    if not candidate.facts.tools:
        found |= Lack.TOOLS
    if candidate.build.build not in candidate.provider.constraint_builds:
        found |= Lack.TOOL_CONSTRAINT
    if not candidate.facts.vision:
        found |= Lack.VISION
    return int(found)


def wants(demand: Demand) -> int:
    """Return the abilities that a request needs, as `Lack` bits."""
    found = Lack.NONE
    if demand.tools:
        found |= Lack.TOOLS
    if demand.tool_constraint:
        found |= Lack.TOOL_CONSTRAINT
    if demand.native_media_tools:
        found |= Lack.NATIVE_MEDIA
    if demand.vision:
        found |= Lack.VISION
    return int(found)


def room(candidate: Candidate) -> float:
    """Return how many more tokens fit, by token budget where there is one, else by memory."""
    provider, slot = candidate.provider, candidate.slot
    capacity = provider.capacity
    if slot and slot.budget_max > 0:
        pool = sum(other.budget_max for other in capacity.slots.values()) if capacity else 0
        left = min(slot.budget_max - tokens_ahead(candidate), pool - provider.pending_tokens)
        return max(left, 0)
    if slot and slot.kv_bytes_per_token > 0:
        # It knows the size of a token and has no budget: it admits nothing.
        return 0
    if capacity is None or capacity.total_memory_gb <= 0:
        return UNLIMITED

    if candidate.slot_state.warm:
        free_gb = capacity.total_memory_gb - capacity.gpu_active_gb
    elif capacity.free_for_load_gb is not None:
        free_gb = capacity.free_for_load_gb - candidate.weights_gb
    else:
        used_gb = capacity.gpu_active_gb + candidate.weights_gb + _COLD_MARGIN_GB
        free_gb = capacity.total_memory_gb - used_gb
    return max(free_gb * 1e9 / _KV_BYTES_PER_TOKEN - provider.pending_tokens, 0)


def _needs_private_text(candidate: Candidate, view: View) -> str:
    """Return what is missing for private text; empty when nothing is."""
    provider = candidate.provider
    privacy = provider.privacy
    found = (
        ("no encryption key", len(provider.encryption_key) != _KEY_BYTES),
        ("chunks are not sealed", not privacy.sealed_chunks),
        ("engine is not in process", not privacy.inprocess),
        ("engine family is not on the list", provider.backend not in view.rules.backends),
        # Owner and development admission say openly that SIP and code identity were not proven.
        ("sip is not proven", not privacy.sip and provider.admission is Admission.PUBLIC),
    )
    return next((words for words, failed in found if failed), "")


def _too_large(candidate: Candidate) -> bool:
    if candidate.slot_state.warm:
        return False
    memory_gb = candidate.provider.memory_gb
    needed_gb = candidate.build.min_ram_gb or candidate.weights_gb * _COLD_WEIGHTS_FACTOR
    return 0 < memory_gb < needed_gb


def _passed_ago(candidate: Candidate, view: View) -> str:
    passed_at = candidate.provider.passed_at
    if passed_at is None:
        return "no challenge passed on this stream"
    if candidate.provider.verdict is None:
        return "no verdict is in force"
    limit_min = view.rules.challenge_max_age_s / 60
    return f"challenge passed {(view.now - passed_at) / 60:.0f} min ago, limit {limit_min:.0f} min"


def trusted_until(candidate: Candidate, rules: Rules) -> float:
    """Return when challenge freshness or verdict runs out; 0 when there is none."""
    provider = candidate.provider
    if provider.passed_at is None or provider.verdict is None:
        return 0.0
    return min(provider.passed_at + rules.challenge_max_age_s, provider.verdict.expires_at)


def _old_runtime(candidate: Candidate, rules: Rules) -> bool:
    floor = rules.min_version
    return bool(floor) and version_key(candidate.provider.version) < version_key(floor)


def _headroom(candidate: Candidate) -> str:
    provider = candidate.provider
    slot = candidate.slot
    here = max(candidate.inflight, slot.running + slot.waiting if slot else 0)
    return (
        f"{provider.inflight} of {provider.concurrency_cap} on this machine, "
        f"{here} of {candidate.concurrency_cap} of this build"
    )


def _no_headroom(candidate: Candidate, _view: View) -> bool:
    provider, slot = candidate.provider, candidate.slot
    here = max(candidate.inflight, slot.running + slot.waiting if slot else 0)
    return provider.inflight >= provider.concurrency_cap or here >= candidate.concurrency_cap


def _short_of(candidate: Candidate, view: View) -> bool:
    needed = candidate.build.required_capabilities
    return bool(
        lacks(candidate) & wants(view.demand) & ~Lack.VISION
        or not needed <= candidate.provider.runtime_capabilities
    )


CHAIN: tuple[Check, ...] = (
    Check(
        Gate.ALLOWLIST,
        lambda c, v: v.demand.policy is OwnerPolicy.EXCLUSIVE and not owns(c, v.demand),
        lambda _c, _v: "the request wants only its owner's machines",
        "send without self-route, or link this machine to the account",
    ),
    Check(
        Gate.EXCLUDED,
        lambda c, v: c.provider in v.excluded,
        lambda _c, _v: "failed or refused this request before",
        "nothing: other requests still come",
    ),
    Check(
        Gate.NOT_SERVING_MODEL,
        lambda c, _v: c.facts.weight_hash not in c.build.accepted_hashes,
        lambda _c, _v: "weight hash is not one of the catalog's",
        "download the build again",
    ),
    Check(
        Gate.OFFLINE,
        lambda c, _v: not c.provider.connected or c.provider.status == "draining",
        lambda c, _v: "the stream is draining" if c.provider.connected else "the stream is gone",
        "start the agent, or let the drain finish",
    ),
    Check(
        Gate.UNTRUSTED,
        lambda c, _v: bool(c.provider.untrusted),
        lambda c, _v: f"untrusted: {c.provider.untrusted}",
        "restart the agent; if it repeats, run darkbloom doctor",
    ),
    Check(
        Gate.PRIVATE_ONLY,
        lambda c, v: c.provider.owner_only and not owns(c, v.demand),
        lambda c, _v: (
            "set to serve its owner only"
            if c.provider.private_only
            else "admitted for its owner only"
        ),
        "turn private_only off, or earn public admission",
    ),
    Check(
        Gate.UNLINKED,
        lambda c, _v: not c.provider.account_id,
        lambda _c, _v: "linked to no account, so nobody could be paid",
        "log in with darkbloom login",
    ),
    Check(
        Gate.TRUST_FLOOR,
        lambda c, v: effective_level(c, v.rules) < floor_of(c, v),
        lambda c, v: f"level {c.provider.level.word}, floor {floor_of(c, v).word}",
        "earn the level: see darkbloom doctor",
    ),
    Check(
        Gate.RUNTIME_UNVERIFIED,
        lambda c, v: not c.provider.runtime_verified or _old_runtime(c, v.rules),
        lambda c, v: (
            f"version below {v.rules.min_version}"
            if _old_runtime(c, v.rules)
            else "code release is not blessed"
        ),
        "update the agent",
    ),
    Check(
        Gate.PRIVATE_TEXT,
        lambda c, v: bool(_needs_private_text(c, v)),
        _needs_private_text,
        "update the agent and use the built-in engine",
    ),
    Check(
        Gate.CHALLENGE_STALE,
        lambda c, v: trusted_until(c, v.rules) <= v.now,
        _passed_ago,
        "wait for the next challenge; check the network if it stays",
    ),
    Check(
        Gate.TRAIT_FLOOR,
        _short_of,
        lambda _c, _v: "tools, tool constraint or a machine feature is missing",
        "update the agent, or serve another build",
    ),
    Check(
        Gate.VISION,
        lambda c, v: v.demand.vision and not c.facts.vision,
        lambda _c, _v: "the request has media and this build reads text",
        "serve a vision build",
    ),
    Check(
        Gate.SLOT_CRASHED,
        lambda c, _v: c.slot_state is SlotState.CRASHED,
        lambda _c, _v: "the engine of this build crashed",
        "restart the agent; see its log",
    ),
    Check(
        Gate.SLOT_RELOADING,
        lambda c, _v: c.slot_state is SlotState.RELOADING,
        lambda _c, _v: "the engine of this build is reloading",
        "wait",
    ),
    Check(
        Gate.NO_HEADROOM,
        _no_headroom,
        lambda c, _v: _headroom(c),
        "nothing: the machine is busy and earning",
    ),
    Check(
        Gate.THERMAL_CRITICAL,
        lambda c, _v: c.thermal is Thermal.CRITICAL,
        lambda _c, _v: "thermal state is critical",
        "cool the machine",
    ),
    Check(
        Gate.MODEL_TOO_LARGE,
        lambda c, _v: _too_large(c),
        lambda c, _v: f"{c.provider.memory_gb:.0f} GB of memory",
        "serve a smaller build",
    ),
    Check(
        Gate.FREE_MEMORY,
        lambda c, v: room(c) < v.demand.tokens,
        lambda c, v: f"room for {room(c):.0f} tokens, {v.demand.tokens} needed",
        "close other programs, or wait for running requests",
    ),
)

_PER_REQUEST = frozenset(
    {
        Gate.ALLOWLIST,
        Gate.EXCLUDED,
        Gate.PRIVATE_ONLY,
        Gate.TRUST_FLOOR,
        Gate.CHALLENGE_STALE,
        Gate.TRAIT_FLOOR,
        Gate.VISION,
        Gate.FREE_MEMORY,
    }
)
_FIXED = tuple(check for check in CHAIN if check.gate not in _PER_REQUEST)
_NEUTRAL = Demand(build="")


def failing(candidate: Candidate, view: View) -> Iterator[Check]:
    """Yield every gate that is shut, in order."""
    return (check for check in CHAIN if check.fails(candidate, view))


def first_gate(candidate: Candidate, view: View) -> Gate:
    """Return the first gate that is shut, or `Gate.ELIGIBLE`."""
    for check in CHAIN:
        if check.fails(candidate, view):
            return check.gate
    return Gate.ELIGIBLE


def prepare(candidate: Candidate, rules: Rules) -> None:
    """Store on the candidate what the gates say about it before a request is known."""
    view = View(_NEUTRAL, rules, now=0.0)
    needed = candidate.build.required_capabilities
    candidate.shut = (
        any(check.fails(candidate, view) for check in _FIXED)
        or not needed <= candidate.provider.runtime_capabilities
    )
    candidate.trusted_until = trusted_until(candidate, rules)
    candidate.effective_level = effective_level(candidate, rules)
    candidate.owner_only = candidate.provider.owner_only
    candidate.lacks = lacks(candidate)
    candidate.room = room(candidate)
