"""Machines fetch with leave, one after the other, and keep what they have meanwhile."""

from functools import partial

import pytest
from darkbloom_router.catalog import Desired, wish_for
from darkbloom_router.downloads import Downloads, Leave
from darkbloom_router.model import Build, Catalog
from darkbloom_router.observations import Stage

ONE, TWO, THREE = b"one", b"two", b"three"
OLD, NEW = "org/old", "org/new"


def catalog(*, granted: bool = True, builds: tuple[str, ...] = (OLD, NEW)) -> Catalog:
    return Catalog(
        generation=1,
        builds={
            name: Build(
                build=name,
                accepted_hashes=frozenset({f"hash of {name}"}),
                weight_hash=f"hash of {name}",
                version="v1",
            )
            for name in builds
        },
        downloads_granted=granted,
    )


def wish(desired: str = NEW, previous: str = OLD) -> Desired:
    return Desired("name", desired, previous, "v1", f"hash of {desired}")


def settled(downloads: Downloads) -> Leave:
    """A machine that is connected for a while."""
    leave = Leave(downloads)
    leave.settle()
    return leave


def asked(
    downloads: Downloads,
    machine: bytes,
    held: dict[str, str],
    *wishes: Desired,
    leave: Leave | None = None,
    trusted: bool = True,
) -> list[str] | None:
    found = (leave or settled(downloads)).of(
        machine, wishes or (wish(),), held, partial(wish_for, catalog()), trusted=trusted
    )
    return None if found is None else [one.desired for one in found]


def test_without_a_bound_everybody_is_asked_at_once() -> None:
    downloads = Downloads()
    downloads.turn(catalog(granted=False))
    assert asked(downloads, ONE, {OLD: f"hash of {OLD}"}) == [NEW]
    assert downloads.wanted == 0


def test_who_has_no_leave_keeps_what_it_has_and_waits_in_line() -> None:
    downloads = Downloads()
    downloads.turn(catalog())
    held = {OLD: f"hash of {OLD}"}
    for machine in (ONE, TWO, THREE, ONE):
        assert asked(downloads, machine, held) == [OLD]
    assert downloads.wanted == 3

    assert downloads.grant(2) == {ONE, TWO}
    assert asked(downloads, ONE, held) == [NEW]
    assert asked(downloads, THREE, held) == [OLD]
    assert downloads.wanted == 1


def test_who_holds_the_build_needs_no_leave() -> None:
    downloads = Downloads()
    downloads.turn(catalog())
    assert asked(downloads, ONE, {NEW: f"hash of {NEW}"}) == [NEW]
    assert downloads.wanted == 0


def test_another_version_of_the_same_build_needs_leave_and_nothing_else_is_fetched() -> None:
    downloads = Downloads()
    downloads.turn(catalog())
    assert asked(downloads, ONE, {NEW: "an older hash"}, wish(NEW, "")) == []
    assert asked(downloads, TWO, {OLD: "an older hash"}) == []
    assert downloads.wanted == 2


def test_leave_ends_with_what_it_was_for_and_who_left_waits_no_more() -> None:
    downloads = Downloads()
    downloads.turn(catalog())
    for machine in (ONE, TWO):
        downloads.may((machine, NEW, f"hash of {NEW}"))
    downloads.grant(1)
    downloads.gone(TWO)
    assert downloads.wanted == 0

    downloads.turn(catalog(builds=(OLD,)))
    downloads.turn(catalog())
    assert not downloads.may((ONE, NEW, f"hash of {NEW}"))


def test_what_the_catalog_has_not_published_waits_for_nothing() -> None:
    downloads = Downloads()
    downloads.turn(catalog())
    gone = Desired("name", "org/gone", "", "", "")
    assert asked(downloads, ONE, {}, gone) == ["org/gone"]
    assert downloads.wanted == 0


HOLDS_OLD = {OLD: f"hash of {OLD}"}


def test_a_stranger_stands_in_no_line_and_joins_it_once_it_is_trusted() -> None:
    downloads = Downloads()
    downloads.turn(catalog())
    for number in range(2000):
        assert asked(downloads, b"s%d" % number, HOLDS_OLD, trusted=False) == [OLD]
    assert downloads.wanted == 0
    assert asked(downloads, ONE, HOLDS_OLD) == [OLD]
    assert downloads.grant(1) == {ONE}


@pytest.mark.parametrize("stage", [Stage.STARTED, Stage.DOWNLOADING])
def test_a_machine_that_fetches_while_it_changes_routers_goes_on(stage: Stage) -> None:
    """Another router, or this one after a restart, knows of no leave."""
    downloads = Downloads()
    downloads.turn(catalog())
    leave = Leave(downloads)
    # A list without the build would end the download; there is none until it has spoken.
    assert asked(downloads, ONE, HOLDS_OLD, leave=leave) is None
    assert leave.heard(NEW, stage)
    assert asked(downloads, ONE, HOLDS_OLD, leave=leave) == [NEW]
    # The registry counts it as it is, and it waits for nothing.
    assert downloads.wanted == 0
    assert asked(downloads, ONE, HOLDS_OLD) == [NEW]


def test_a_machine_that_fetches_nothing_waits_after_it_had_its_time_to_say_so() -> None:
    downloads = Downloads()
    downloads.turn(catalog())
    leave = Leave(downloads)
    assert asked(downloads, ONE, HOLDS_OLD, leave=leave) is None
    assert not leave.heard(NEW, Stage.FAILED)
    assert not leave.heard("org/other", Stage.DOWNLOADING)
    assert asked(downloads, ONE, HOLDS_OLD, leave=leave) is None
    leave.settle()
    assert asked(downloads, ONE, HOLDS_OLD, leave=leave) == [OLD]
    assert downloads.wanted == 1


def test_what_runs_when_a_bound_is_set_goes_on() -> None:
    downloads = Downloads()
    downloads.turn(catalog(granted=False))
    leave = settled(downloads)
    assert asked(downloads, ONE, HOLDS_OLD, leave=leave) == [NEW]
    assert not leave.heard(NEW, Stage.DOWNLOADING)
    downloads.turn(catalog())
    assert asked(downloads, ONE, HOLDS_OLD, leave=leave) == [NEW]


def test_a_fetch_that_has_ended_needs_leave_to_begin_again() -> None:
    downloads = Downloads()
    downloads.turn(catalog(granted=False))
    leave = settled(downloads)
    leave.heard(NEW, Stage.DOWNLOADING)
    leave.heard(NEW, Stage.FAILED)
    downloads.turn(catalog())
    assert asked(downloads, ONE, HOLDS_OLD, leave=leave) == [OLD]
