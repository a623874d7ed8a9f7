"""How many machines of this replica are asked to hold a build, hold it, have it in memory."""

from collections.abc import Iterable
from dataclasses import dataclass

from darkbloom_router.provider import Provider


@dataclass(slots=True)
class Held:
    """Machines and one build."""

    build: str
    wished: int = 0
    """Wanted to hold it by the catalog, with leave to fetch it or without."""
    holding: int = 0
    """Hold files of it whose hash the catalog accepts."""
    current: int = 0
    """Of those wanted to: hold the active version."""
    warm: int = 0
    """Have the active version in memory."""


def count(machines: Iterable[tuple[Provider, Iterable[str]]]) -> list[Held]:
    """Count machines by build.

    Args:
        machines: Each with the builds that it is wanted to hold.
    """
    found: dict[str, Held] = {}
    for provider, builds in machines:
        wished = frozenset(builds)
        for build in wished:
            found.setdefault(build, Held(build)).wished += 1
        for name, candidate in provider.candidates.items():
            held = found.setdefault(name, Held(name))
            held.holding += 1
            if candidate.facts.weight_hash == candidate.build.weight_hash:
                held.current += name in wished
                held.warm += candidate.slot_state.warm
    return list(found.values())
