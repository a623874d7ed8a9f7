"""Which public names a provider should hold builds for."""

import hashlib
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from darkbloom_router.model import Alias, Catalog

_ALL = 100


@dataclass(frozen=True, slots=True)
class Desired:
    """One name that concerns a provider, and the build that the catalog wants for it."""

    alias: str
    desired: str
    previous: str
    version: str
    weight_hash: str


def in_share(alias: Alias, identity_key: bytes, peers: Iterable[bytes]) -> bool:
    """Return whether a machine belongs to the share that has reached an alias's desired build.

    The same machines at every replica and at each larger share; of the machines concerned
    (`peers`) at least one, so that a rollout of one in a hundred begins in a small fleet too.
    """
    if alias.percent >= _ALL or not alias.previous:
        return True
    if alias.percent <= 0:
        return False
    own = _place(alias.alias, identity_key)
    return own < alias.percent / _ALL or all(own <= _place(alias.alias, peer) for peer in peers)


def _place(name: str, identity_key: bytes) -> float:
    """Return where in [0, 1) a machine stands in the line for a name."""
    digest = hashlib.sha256(name.encode() + b"\0" + identity_key).digest()
    return int.from_bytes(digest[:8]) / 2**64


def desired_models(
    catalog: Catalog, held: Collection[str], taken: Callable[[Alias], bool]
) -> list[Desired]:
    """Return the names of which the provider already holds a member.

    A name on its way to another build (`taken` says no) is wished at the build that it comes from,
    and a build that no name covers goes by its own: its new versions concern whoever holds it too.
    """
    found, covered = [], set[str]()
    for alias in catalog.aliases:
        covered |= {alias.desired, alias.previous}
        if alias.desired in held or alias.previous in held:
            if taken(alias):
                found.append(_desired(catalog, alias.alias, alias.desired, alias.previous))
            else:
                found.append(_desired(catalog, alias.alias, alias.previous, ""))
    found += [
        _desired(catalog, build, build, "")
        for build in sorted(held)
        if build in catalog.builds and build not in covered
    ]
    return found


def wish_for(catalog: Catalog, build: str) -> Desired:
    """Return the wish for a build by itself."""
    return _desired(catalog, build, build, "")


def _desired(catalog: Catalog, name: str, desired: str, previous: str) -> Desired:
    build = catalog.builds.get(desired)
    return Desired(
        alias=name,
        desired=desired,
        previous=previous,
        version=build.version if build else "",
        weight_hash=build.weight_hash if build else "",
    )
