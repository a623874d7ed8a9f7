"""When a crashed agent comes back, and when not."""

from datetime import timedelta

import pytest
from darkbloom_mesh.testing import FakeClock
from darkbloom_provider import lock
from darkbloom_provider.home import Home
from darkbloom_provider.service.guard import (
    MAX_RESTARTS,
    RELAUNCH_AFTER_S,
    WINDOW_S,
    Advice,
    Seen,
    Watch,
    advise,
)
from darkbloom_provider.service.intent import Intent, read_intent, write_intent
from darkbloom_provider.service.watchdog import Watchdog, read_watch, set_aside


def seen(now, *, running=False, wanted=True, version="1.0.0"):
    return Seen(now=now, version=version, running=running, wanted=wanted)


def crash(watch, now, **more):
    """See it dead, wait out the pause, and return what follows and when."""
    watch, advice = advise(watch, seen(now, **more))
    assert advice is not Advice.RELAUNCH
    return (*advise(watch, seen(now + RELAUNCH_AFTER_S, **more)), now + RELAUNCH_AFTER_S)


def test_what_runs_or_is_not_wanted_is_left_alone():
    assert advise(Watch(), seen(0, running=True))[1] is Advice.NOTHING
    assert advise(Watch(), seen(0, wanted=False))[1] is Advice.NOTHING


def test_a_crash_is_answered_after_five_minutes_and_not_before():
    watch, advice = advise(Watch(version="1.0.0"), seen(1000))
    assert advice is Advice.WAIT
    watch, advice = advise(watch, seen(1000 + RELAUNCH_AFTER_S - 1))
    assert advice is Advice.WAIT
    watch, advice = advise(watch, seen(1000 + RELAUNCH_AFTER_S))
    assert advice is Advice.RELAUNCH
    assert watch.restarts == (1000 + RELAUNCH_AFTER_S,)


def test_an_agent_that_came_back_by_itself_is_forgotten():
    watch, _ = advise(Watch(version="1.0.0"), seen(1000))
    watch, _ = advise(watch, seen(1100, running=True))
    _, advice = advise(watch, seen(1000 + RELAUNCH_AFTER_S))

    assert advice is Advice.WAIT


def test_the_fourth_crash_within_an_hour_trips_the_guard_until_another_version_comes():
    watch, now = Watch(version="1.0.0"), 0.0
    for _ in range(MAX_RESTARTS):
        watch, advice, now = crash(watch, now)
        assert advice is Advice.RELAUNCH
    watch, advice, now = crash(watch, now)
    assert advice is Advice.TRIPPED
    assert advise(watch, seen(now + 10 * WINDOW_S))[1] is Advice.TRIPPED

    # It has been dead for long enough: the new version is tried at once.
    watch, advice = advise(watch, seen(now, version="1.0.1"))
    assert advice is Advice.RELAUNCH


def test_crashes_that_are_hours_apart_never_trip_it():
    watch, now = Watch(version="1.0.0"), 0.0
    for _ in range(3 * MAX_RESTARTS):
        watch, advice, now = crash(watch, now)
        assert advice is Advice.RELAUNCH
        now += WINDOW_S


def test_the_owners_word_clears_the_guard():
    tripped = Watch(version="1.0.0", tripped=True)

    watch, _ = advise(tripped, seen(0, wanted=False))

    assert not watch.tripped


def test_a_wall_clock_that_was_set_back_does_not_stop_it_for_ever():
    watch, _ = advise(Watch(version="1.0.0"), seen(1_000_000))
    watch, _ = advise(watch, seen(0))

    assert advise(watch, seen(RELAUNCH_AFTER_S))[1] is Advice.RELAUNCH


class Manager:
    """Counts starts."""

    def __init__(self) -> None:
        self.started: list[str] = []

    def start(self, label: str) -> None:
        self.started.append(label)


@pytest.fixture
def home(tmp_path):
    folder = Home(root=tmp_path / "home")
    folder.create()
    return folder


async def test_the_watchdog_starts_what_is_wanted_and_dead_and_remembers_across_its_own_death(home):
    clock, manager = FakeClock(), Manager()

    def dog():
        return Watchdog(home, manager, clock, version=lambda: "1.0.0", auto_restart=lambda: True)

    assert dog().look() is Advice.NOTHING
    write_intent(home.intent, Intent(wanted="running"))
    with lock.single_instance(home.lock):
        assert dog().look() is Advice.NOTHING
    assert dog().look() is Advice.WAIT
    await clock.advance(timedelta(seconds=RELAUNCH_AFTER_S).total_seconds())
    assert dog().look() is Advice.RELAUNCH
    assert manager.started == ["io.darkbloom.provider"]
    assert len(read_watch(home.watchdog_state).restarts) == 1
    assert home.watchdog_state.stat().st_mode & 0o777 == 0o600


async def test_a_death_is_told_only_when_it_lasts(home):
    clock, told = FakeClock(), []

    class Witness:
        def alive(self, snapshot, now) -> None:
            told.append("alive")

        def died(self, snapshot) -> None:
            told.append("died")

    dog = Watchdog(
        home,
        Manager(),
        clock,
        version=lambda: "1.0.0",
        auto_restart=lambda: True,
        witness=Witness(),
    )
    write_intent(home.intent, Intent(wanted="running"))
    dog.look()
    assert told == []
    with lock.single_instance(home.lock):
        dog.look()
    dog.look()
    await clock.advance(RELAUNCH_AFTER_S)
    dog.look()

    assert told == ["alive", "died"]


def test_an_owner_who_switched_it_off_is_obeyed(home):
    write_intent(home.intent, Intent(wanted="running"))
    dog = Watchdog(
        home, Manager(), FakeClock(), version=lambda: "1.0.0", auto_restart=lambda: False
    )

    assert dog.look() is Advice.NOTHING


def test_a_damaged_memory_is_a_clean_sheet(home):
    for damage in (b"", b"{", b"\xff\xfe", b"[]"):
        home.watchdog_state.write_bytes(damage)
        home.intent.write_bytes(damage)
        assert read_watch(home.watchdog_state) == Watch()
        assert read_intent(home.intent) == Intent()


def test_a_log_that_grew_too_large_is_set_aside_while_its_writer_goes_on(home):
    with home.log.open("ab") as writer:
        writer.write(b"a" * 50 + b"b" * 50)
        writer.flush()
        set_aside(home.log, limit=60)
        writer.write(b"new")
    set_aside(home.root / "none")

    assert home.log.read_bytes() == b"new"
    assert (home.root / "provider.log.1").read_bytes() == b"a" * 10 + b"b" * 50
