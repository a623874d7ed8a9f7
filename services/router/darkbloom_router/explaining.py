"""Why a provider gets no requests for a build: first shut gate, what was compared, what helps."""

from dataclasses import dataclass

from darkbloom_router.conditions import View
from darkbloom_router.fleet import Fleet
from darkbloom_router.gates import failing
from darkbloom_router.model import Demand, Gate, TrustLevel
from darkbloom_router.provider import Provider

MAX_BUILDS = 64


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the chain says of one build on one provider, to a stranger's plain request."""

    build: str
    gate: Gate
    evidence: str = ""
    remedy: str = ""

    @property
    def eligible(self) -> bool:
        """Whether requests may come."""
        return self.gate is Gate.ELIGIBLE


def explain(
    fleet: Fleet, provider: Provider, build: str, now: float, floor: TrustLevel
) -> Explanation:
    """Return the first shut gate of one build, with evidence and remedy."""
    candidate = provider.candidates.get(build)
    if candidate is None:
        return Explanation(
            build,
            Gate.NOT_SERVING_MODEL,
            "not among the accepted builds of this provider",
            "download the catalog's version of the build",
        )
    view = View(Demand(build=build, floor=floor), fleet.rules, now)
    check = next(failing(candidate, view), None)
    if check is None:
        return Explanation(build, Gate.ELIGIBLE)
    return Explanation(build, check.gate, check.evidence(candidate, view), check.remedy)


def explain_all(
    fleet: Fleet, provider: Provider, now: float, floor: TrustLevel | None = None
) -> list[Explanation]:
    """Return an explanation for each build that the provider serves."""
    level = fleet.rules.min_trust if floor is None else floor
    builds = sorted(provider.candidates)[:MAX_BUILDS]
    return [explain(fleet, provider, build, now, level) for build in builds]
