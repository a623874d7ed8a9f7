"""Which public names a provider should hold builds for."""

from collections.abc import Collection
from dataclasses import dataclass

from darkbloom_router.model import Catalog


@dataclass(frozen=True, slots=True)
class Desired:
    """One name that concerns a provider, and the build that the catalog wants for it."""

    alias: str
    desired: str
    previous: str
    version: str
    weight_hash: str


def desired_models(catalog: Catalog, held: Collection[str]) -> list[Desired]:
    """Return the names of which the provider already holds a member.

    A build that no name covers goes by its own: its new versions concern whoever holds it too.
    """
    found, covered = [], set[str]()
    for alias in catalog.aliases:
        covered |= {alias.desired, alias.previous}
        if alias.desired in held or alias.previous in held:
            found.append(_desired(catalog, alias.alias, alias.desired, alias.previous))
    found += [
        _desired(catalog, build, build, "")
        for build in sorted(held)
        if build in catalog.builds and build not in covered
    ]
    return found


def _desired(catalog: Catalog, name: str, desired: str, previous: str) -> Desired:
    build = catalog.builds.get(desired)
    return Desired(
        alias=name,
        desired=desired,
        previous=previous,
        version=build.version if build else "",
        weight_hash=build.weight_hash if build else "",
    )
