"""The life of a version: ready, then active, then retained (spec/registry.md §11)."""

import dataclasses

from darkbloom_registry.errors import (
    VersionActiveError,
    VersionNotFoundError,
    VersionRetiredError,
)
from darkbloom_registry.model import Version, VersionState


def promote(versions: tuple[Version, ...], wanted: str) -> tuple[Version, ...]:
    """Make one version the active one; the one before is retained, its hash stays accepted.

    Returns:
        The versions whose state changes, the demoted one first; empty when it is active already.

    Raises:
        VersionNotFoundError: there is no such version.
        VersionRetiredError: it was retired.
    """
    target = _named(versions, wanted)
    if target.state is VersionState.RETIRED:
        raise VersionRetiredError("a retired version is never promoted again")
    if target.state is VersionState.ACTIVE:
        return ()

    demoted = (
        dataclasses.replace(version, state=VersionState.RETAINED)
        for version in versions
        if version.state is VersionState.ACTIVE
    )
    return (*demoted, dataclasses.replace(target, state=VersionState.ACTIVE))


def retire(versions: tuple[Version, ...], wanted: str) -> tuple[Version, ...]:
    """Revoke one version: nobody may serve its hash again.

    Returns:
        The version as changed; empty when it is retired already.

    Raises:
        VersionNotFoundError: there is no such version.
        VersionActiveError: consumers get it; promote another one first.
    """
    target = _named(versions, wanted)
    if target.state is VersionState.ACTIVE:
        raise VersionActiveError("the active version is not retired; promote another one first")
    if target.state is VersionState.RETIRED:
        return ()
    return (dataclasses.replace(target, state=VersionState.RETIRED),)


def _named(versions: tuple[Version, ...], wanted: str) -> Version:
    target = next((version for version in versions if version.version == wanted), None)
    if target is None:
        raise VersionNotFoundError("the build has no such version")
    return target
