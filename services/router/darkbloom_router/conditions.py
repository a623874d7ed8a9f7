"""What each gate compares: predicates over a candidate and a request, and their evidence in words.

Pure and without order; `gates` puts them into the chain.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from darkbloom_router.admission import room
from darkbloom_router.faults.pair import PairFaults
from darkbloom_router.forecast import Credence, credence, forecast
from darkbloom_router.model import Admission, Demand, OwnerPolicy, Rules, TrustLevel
from darkbloom_router.provider import Candidate, Lack, Provider
from darkbloom_router.versions import below_floor

_KEY_BYTES = 32
_MINUTES_FROM_S = 120.0
_TOOLS, _TOOL_CONSTRAINT = Lack.TOOLS.value, Lack.TOOL_CONSTRAINT.value
_NATIVE_MEDIA, _VISION = Lack.NATIVE_MEDIA.value, Lack.VISION.value
"""As plain numbers: flags are slow, and these are asked for on every heartbeat."""


@dataclass(frozen=True, slots=True)
class View:
    """What one evaluation compares a candidate with."""

    demand: Demand
    rules: Rules
    now: float
    excluded: Collection[object] = ()
    """Providers (objects) that failed or refused this request."""
    deadline: float | None = None
    """Monotonic seconds by which the first content is due."""
    open_sick: bool = False
    """Whether breaker and ejection are left open: nobody healthier is there."""

    @property
    def left_ms(self) -> float | None:
        """Milliseconds left to the first content."""
        return None if self.deadline is None else max(0.0, self.deadline - self.now) * 1000


def owns(candidate: Candidate, demand: Demand) -> bool:
    """Return whether the request's account earns with this machine, and names no other."""
    return owned(candidate.provider, demand)


def owned(provider: Provider, demand: Demand) -> bool:
    """Return whether a machine is one of those that the caller may call his own here."""
    return provider.owned_by(demand.account_id) and demand.machine in ("", provider.provider_id)


def relaxed(candidate: Candidate, demand: Demand) -> bool:
    """Return whether the caller asked for the own machines and this is one of them."""
    return demand.policy is not OwnerPolicy.PUBLIC and owns(candidate, demand)


def floor_of(candidate: Candidate, view: View) -> TrustLevel:
    """Return the floor that holds here: none for the caller's own machines under self-route."""
    if relaxed(candidate, view.demand):
        return TrustLevel.NONE
    return max(view.demand.floor, view.rules.min_trust)


def effective_level(candidate: Candidate, rules: Rules) -> TrustLevel:
    """Return the level as the floor sees it: development admission meets any, in development."""
    provider = candidate.provider
    if rules.development and provider.admission is Admission.DEVELOPMENT:
        return TrustLevel.HARDWARE
    return provider.level


def lacks(candidate: Candidate) -> int:
    """Return the abilities that this candidate does not have, as `Lack` bits."""
    found = _NATIVE_MEDIA
    if not candidate.facts.tools:
        found |= _TOOLS
    if candidate.build.build not in candidate.provider.constraint_builds:
        found |= _TOOL_CONSTRAINT
    if not candidate.facts.vision:
        found |= _VISION
    return found


def wants(demand: Demand) -> int:
    """Return the abilities that a request needs, as `Lack` bits; also the shape of its faults."""
    found = 0
    if demand.tools:
        found |= _TOOLS
    if demand.tool_constraint:
        found |= _TOOL_CONSTRAINT
    if demand.native_media_tools:
        found |= _NATIVE_MEDIA
    if demand.vision:
        found |= _VISION
    return found


def trusted_until(candidate: Candidate, rules: Rules) -> float:
    """Return when challenge freshness or verdict runs out; 0 when there is none."""
    provider = candidate.provider
    if provider.passed_at is None or provider.verdict is None:
        return 0.0
    return min(provider.passed_at + rules.challenge_max_age_s, provider.verdict.expires_at)


def missing_for_private_text(candidate: Candidate, view: View) -> str:
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


def passed_ago(candidate: Candidate, view: View) -> str:
    """Say when the last challenge was passed, and what is too long ago."""
    provider, limit_min = candidate.provider, view.rules.challenge_max_age_s / 60
    if provider.passed_at is None:
        return "no challenge passed on this stream"
    if provider.verdict is None:
        return "no verdict is in force"
    if provider.verdict.expires_at <= view.now:
        return f"the verdict ran out {ago(view.now - provider.verdict.expires_at)} ago"
    age_min = (view.now - provider.passed_at) / 60
    return f"challenge passed {age_min:.0f} min ago, limit {limit_min:.0f} min"


def old_runtime(candidate: Candidate, rules: Rules) -> bool:
    """Return whether the agent is older than the version floor."""
    return below_floor(candidate.provider.version, rules.min_version)


def headroom(candidate: Candidate, _view: View) -> str:
    """Say how many attempts run here, of how many that may."""
    provider = candidate.provider
    return (
        f"{provider.inflight} of {provider.concurrency_cap} on this machine, "
        f"{candidate.occupancy} of {candidate.concurrency_cap} of this build"
    )


def no_headroom(candidate: Candidate, _view: View) -> bool:
    """Return whether machine or build is at its concurrency cap."""
    return full(candidate)


def full(candidate: Candidate) -> bool:
    """Return the same without a request."""
    provider = candidate.provider
    return (
        provider.inflight >= provider.concurrency_cap
        or candidate.occupancy >= candidate.concurrency_cap
    )


def short_of(candidate: Candidate, view: View) -> str:
    """Return the trait that is missing; empty when none is."""
    missing = lacks(candidate) & wants(view.demand)
    features = candidate.build.required_capabilities - candidate.provider.runtime_capabilities
    if not missing and not features:
        return ""
    found = (
        ("the chat template renders no tools", missing & _TOOLS),
        ("tool calls cannot be forced for this build", missing & _TOOL_CONSTRAINT),
        ("native media tools are not supported", missing & _NATIVE_MEDIA),
        (f"this build needs {', '.join(sorted(features))}", features),
    )
    return next((words for words, failed in found if failed), "")


def dedicated_family(candidate: Candidate, rules: Rules) -> str:
    """Return the dedicated family that a build belongs to; empty when none."""
    name = candidate.build.build.lower()
    return next((family for family in rules.dedicated if family in name), "")


def shares(candidate: Candidate, view: View) -> bool:
    """Return whether a dedicated family would live with others here."""
    family = dedicated_family(candidate, view.rules)
    if not family or relaxed(candidate, view.demand):
        return False
    return any(family not in name.lower() for name in candidate.provider.candidates)


def not_listed(candidate: Candidate, view: View) -> bool:
    """Return whether the request wants other machines: its owner's, or named serials."""
    demand = view.demand
    if demand.policy is OwnerPolicy.EXCLUSIVE and not owns(candidate, demand):
        return True
    return bool(demand.serials) and candidate.provider.serial not in demand.serials


def held(candidate: Candidate, of: Callable[[PairFaults], float], view: View) -> float:
    """Return for how many seconds a sentence of the pair still holds."""
    pair = candidate.pair
    return max(0.0, of(pair) - view.now) if pair else 0.0


def errors_until(view: View) -> Callable[[PairFaults], float]:
    """Return how to read the end of this request shape's error cooldown."""
    return lambda pair: pair.errors_until.get(wants(view.demand), 0.0)


def broken(candidate: Candidate, view: View) -> bool:
    """Return whether the node breaker is open."""
    faults = candidate.provider.faults
    return not view.open_sick and faults is not None and faults.node.breaker.shut(view.now)


def ejected(candidate: Candidate, view: View) -> bool:
    """Return whether health ejection is open."""
    faults = candidate.provider.faults
    return not view.open_sick and faults is not None and faults.node.ejection.shut(view.now)


def sentence(until: float, now: float, why: str) -> str:
    """Say why something is shut, and for how much longer."""
    return f"{why}; {ago(max(0.0, until - now))} left"


def node_evidence(candidate: Candidate, view: View, *, ejection: bool) -> str:
    """Say what a breaker or an ejection rests on."""
    faults = candidate.provider.faults
    if faults is None:
        return "nothing is held against this machine"
    node = faults.node
    bad = sum(outcome.bad for _, outcome in node.events)
    hold = node.ejection if ejection else node.breaker
    return sentence(hold.until, view.now, f"{bad} of the last {len(node.events)} attempts failed")


def cooling(candidate: Candidate, view: View) -> str:
    """Say why the pair gets no request for want of room; empty when it does."""
    pair = candidate.pair
    if pair is None or not pair.cooling(view.now):
        return ""
    if pair.cooldown.shut(view.now):
        return sentence(pair.cooldown.until, view.now, "said five times that it is full")
    return "one request is finding out whether there is room again"


def late(candidate: Candidate, view: View) -> bool:
    """Return whether the hard ceiling is on and a credible forecast misses the deadline."""
    demand, left_ms = view.demand, view.left_ms
    if not view.rules.ttft_ceiling or left_ms is None or demand.vision:
        return False
    if demand.policy is not OwnerPolicy.PUBLIC:
        return False
    return credence(candidate, demand, view.now, left_ms) is Credence.LATE


def lateness(candidate: Candidate, view: View) -> str:
    """Say when the first content would come, and when it is due."""
    found = forecast(candidate, view.demand, view.now, view.left_ms)
    return f"first content after {found.careful:.0f} ms, {view.left_ms or 0:.0f} ms left"


def room_evidence(candidate: Candidate, view: View) -> str:
    """Say how many tokens fit, and how many are needed."""
    pair = candidate.pair
    if pair is not None and pair.no_room(view.now):
        return "refused for want of room, and has shown none since"
    return f"room for {room(candidate, view.now):.0f} tokens, {view.demand.tokens} needed"


def ago(seconds: float) -> str:
    """Return a span of time in words."""
    return f"{seconds:.0f} s" if seconds < _MINUTES_FROM_S else f"{seconds / 60:.0f} min"
