"""Names that take over the id of a build, and how they let go of it (spec/registry.md §8, §14).

The order: point the name, wait until every machine has the new build, wait until none has the old
one in memory, deprecate the old one, upsert the name without `takeover`. Out of this order machines
lose what they are serving, or stand there with nothing; so it is refused, and the refusal says what
comes first.
"""

from collections.abc import Sequence

from darkbloom_registry.aliases import is_split
from darkbloom_registry.errors import NameTakenError, TakeoverEarlyError, TakeoverLiveError
from darkbloom_registry.model import Alias, Build
from darkbloom_registry.progress.readers import Reader, held

_ROUTER = "router"


def check_owner(wanted: Alias, current: Alias | None, owner: Build | None) -> None:
    """Refuse a name that is a build's id, unless it takes it over or has done so.

    Args:
        wanted: The name as it shall be.
        current: As it is; None where it is new.
        owner: The build of the same id, if there is one.

    Raises:
        NameTakenError: it is a build's, and `takeover` was not said.
        TakeoverLiveError: it took the id over, and the build is still served.
    """
    if owner is None or wanted.takeover:
        return
    if current is None:
        raise NameTakenError(
            "a build has this name; `takeover` with previous_build of the same name takes it over"
        )
    if owner.listed:
        raise TakeoverLiveError(
            "the build of this name is still served: keep `takeover`; first every machine gets the"
            " desired build and none has this in memory, then deprecate it, then drop `takeover`"
        )


def check_end(current: Alias | None, owner: Build | None) -> None:
    """Refuse to delete a name, or make it inactive, that took over a build which is served.

    The id would mean that build again at once, and machines may have dropped it.

    Args:
        current: The name as it is.
        owner: The build of the same id, if there is one.

    Raises:
        TakeoverLiveError: it is such a name.
    """
    taken = current is not None and current.active and current.takeover
    if taken and owner is not None and owner.listed:
        raise TakeoverLiveError(
            "the build of this name is still served: the name stays; first every machine gets the"
            " desired build and none has this in memory, then deprecate it, then the name may go"
        )


def check_return(alias: Alias | None) -> None:
    """Refuse to serve a build again whose id now belongs to a name alone.

    Raises:
        NameTakenError: it does.
    """
    if alias is not None and not alias.takeover:
        raise NameTakenError("a name took this id over for good; register its files under another")


def check_retirement(
    alias: Alias | None, readers: Sequence[Reader], generation: int, leave_behind: int
) -> None:
    """Refuse to take away a build that a name took over, while machines need it.

    Args:
        alias: The name of the same id, if there is one.
        readers: What routers said of their machines.
        generation: The newest; whoever goes by an older one asks machines for something else.
        leave_behind: Machines that may lose it. Where no router is known nobody counts them: 0
            refuses, and more says that none matters.

    Raises:
        TakeoverEarlyError: more would, or nobody knows.
    """
    if alias is None or not alias.takeover:
        return
    if is_split(alias):
        raise TakeoverEarlyError("a part of the name's traffic still gets it; end the split first")
    routers = [reader for reader in readers if reader.room == _ROUTER]
    # One that is cut off from the registry is soon forgotten, and its machines are still there.
    if not routers and not leave_behind:
        raise TakeoverEarlyError(
            "no router is known: what machines hold is not known; in a mesh without routers"
            " `leave_behind` of 1 or more lets it go"
        )
    if routers and all(reader.silent for reader in routers):
        raise TakeoverEarlyError("no router speaks: what machines hold is not known")
    if any(reader.generation < generation for reader in routers):
        raise TakeoverEarlyError("a router does not go by the newest catalog yet")

    moving = held(alias.desired_build, routers)
    missing = max(0, moving.wished - moving.current)
    if missing > leave_behind:
        raise TakeoverEarlyError(
            f"{missing} of {moving.wished} machines do not have {alias.desired_build} yet"
        )
    warm = held(alias.alias_id, routers).warm
    if warm > leave_behind:
        raise TakeoverEarlyError(
            f"{warm} machines still have it in memory; it leaves after an hour without requests"
        )
