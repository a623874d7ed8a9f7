"""Which public names a provider should hold builds for."""

from collections.abc import Collection
from dataclasses import dataclass

from darkbloom_router.model import Catalog


@dataclass(frozen=True, slots=True)
class Desired:
    """One alias that concerns a provider, and the build that the catalog wants for it."""

    alias: str
    desired: str
    previous: str
    version: str
    weight_hash: str


def desired_models(catalog: Catalog, held: Collection[str]) -> list[Desired]:
    """Return the aliases of which the provider already holds a member."""
    found = []
    for alias in catalog.aliases:
        if alias.desired not in held and alias.previous not in held:
            continue
        build = catalog.builds.get(alias.desired)
        found.append(
            Desired(
                alias=alias.alias,
                desired=alias.desired,
                previous=alias.previous,
                version=build.version if build else "",
                weight_hash=build.weight_hash if build else "",
            )
        )
    return found
