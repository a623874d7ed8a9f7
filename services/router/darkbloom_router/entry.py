"""Whether a request may come in at all, and how long it may take to begin."""

from collections.abc import Mapping
from dataclasses import dataclass

from darkbloom.router.v1.gateway_lane_pb2 import Open

from darkbloom_router import refusals
from darkbloom_router.fleet import Fleet
from darkbloom_router.model import Build, Demand
from darkbloom_router.provider import Provider
from darkbloom_router.refusals import Refusal

_MAX_RESERVE_S = 2.0
_MAX_EXCLUDED = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchLimits:
    """Bounds of dispatch."""

    max_attempts: int = 64
    requests_per_lane: int = 8192
    max_deadline_s: float = 600.0
    default_deadline_s: float = 180.0
    deadline_token_ms: float = 10.0
    reject_models: frozenset[str] = frozenset()
    queue_before_shed: bool = True


def time_left(limits: DispatchLimits, message: Open, prompt_tokens: int, unix_now: float) -> float:
    """Return the time to the first content; nobody waits without end, whatever he names."""
    ceiling = limits.default_deadline_s + prompt_tokens * limits.deadline_token_ms / 1000
    if message.HasField("deadline_time"):
        deadline = message.deadline_time.seconds + message.deadline_time.nanos / 1e9
        ceiling = min(deadline - unix_now, ceiling)
    return max(0.0, min(ceiling, limits.max_deadline_s))


def reserve_s(message: Open) -> float:
    """Return how long an offer waits to be sealed; 0 is as long as the request has."""
    if not message.HasField("reserve_for"):
        return 0.0
    return min(message.reserve_for.ToTimedelta().total_seconds(), _MAX_RESERVE_S)


def excluded(message: Open, fleet: Fleet) -> set[Provider]:
    """Return those that the consumer has tried under earlier requests, as far as they are here."""
    found = (fleet.providers.get(name) for name in message.excluded_providers[:_MAX_EXCLUDED])
    return {provider for provider in found if provider is not None}


def unservable(
    demand: Demand, builds: Mapping[str, Build], limits: DispatchLimits
) -> Refusal | None:
    """Return why nobody could ever serve a request, before anybody is asked."""
    build = builds.get(demand.build)
    if build is None and demand.fallback_build not in builds:
        return refusals.UNAVAILABLE
    if demand.build in limits.reject_models:
        return refusals.REJECTED_MODEL
    if build is not None and 0 < build.max_context < demand.prompt_tokens:
        return refusals.CONTEXT_EXCEEDED
    return None
