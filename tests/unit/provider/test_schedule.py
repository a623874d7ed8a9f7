"""Weekly windows: plain weeks, midnight, both clock changes, and that nothing flaps."""

from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from darkbloom_provider.schedule import Schedule, WindowError, instant, parse_window
from darkbloom_provider.zone import local_zone
from hypothesis import given
from hypothesis import strategies as st

NEW_YORK = ZoneInfo("America/New_York")
BERLIN = ZoneInfo("Europe/Berlin")
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")
ALL = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def local(zone, *parts, fold=0):
    return datetime(*parts, tzinfo=zone, fold=fold)


def nightly(zone, start="22:00", end="06:00", days=ALL):
    return Schedule(windows=(parse_window(days, start, end),), zone=zone)


def test_without_windows_the_machine_is_always_lent_out():
    phase = Schedule().at(datetime(2026, 1, 1, tzinfo=UTC))

    assert phase.open
    assert phase.until is None


def test_a_window_that_wraps_belongs_to_its_start_day():
    schedule = nightly(BERLIN, days=("fri",))

    assert not schedule.at(local(BERLIN, 2026, 1, 9, 3)).open  # Friday's small hours
    saturday = schedule.at(local(BERLIN, 2026, 1, 10, 3))
    assert saturday.open
    assert saturday.until == local(BERLIN, 2026, 1, 10, 6)


def test_a_closed_machine_knows_its_next_opening_even_six_days_ahead():
    schedule = nightly(BERLIN, days=("mon",))

    phase = schedule.at(local(BERLIN, 2026, 1, 6, 12))

    assert not phase.open
    assert phase.until == local(BERLIN, 2026, 1, 12, 22)


def test_equal_times_are_a_day_and_a_week_of_them_never_closes():
    one = Schedule(windows=(parse_window(("sat",), "08:00", "08:00"),), zone=BERLIN)
    every = Schedule(windows=(parse_window(ALL, "08:00", "08:00"),), zone=BERLIN)

    assert one.at(local(BERLIN, 2026, 1, 11, 7, 59)).until == local(BERLIN, 2026, 1, 11, 8)
    assert every.at(local(BERLIN, 2026, 1, 11, 7, 59)).until is None


def test_windows_that_touch_or_overlap_are_one():
    schedule = Schedule(
        windows=(
            parse_window(("mon",), "08:00", "12:00"),
            parse_window(("mon",), "11:00", "14:00"),
            parse_window(("Monday",), "14:00", "24:00"),
        ),
        zone=UTC,
    )

    phase = schedule.at(datetime(2026, 1, 5, 9, tzinfo=UTC))

    assert phase.until == datetime(2026, 1, 6, tzinfo=UTC)


def test_an_end_is_not_part_of_its_window():
    schedule = nightly(UTC)

    assert schedule.at(datetime(2026, 1, 5, 5, 59, 59, tzinfo=UTC)).open
    assert not schedule.at(datetime(2026, 1, 5, 6, tzinfo=UTC)).open


def test_a_night_in_which_the_clocks_go_forward_is_an_hour_shorter():
    # 2026-03-08 02:00 EST becomes 03:00 EDT.
    phase = nightly(NEW_YORK).at(local(NEW_YORK, 2026, 3, 7, 22))

    assert phase.open
    assert phase.until - local(NEW_YORK, 2026, 3, 7, 22).astimezone(UTC) == timedelta(hours=7)


def test_a_night_in_which_the_clocks_go_back_is_an_hour_longer():
    phase = nightly(NEW_YORK).at(local(NEW_YORK, 2026, 10, 31, 22))

    assert phase.until - local(NEW_YORK, 2026, 10, 31, 22).astimezone(UTC) == timedelta(hours=9)


def test_a_start_that_the_clocks_jump_over_opens_at_the_jump():
    jump = datetime(2026, 3, 8, 7, tzinfo=UTC)
    schedule = nightly(NEW_YORK, "02:30", "05:00")

    assert schedule.at(jump - timedelta(seconds=1)).until == jump
    assert schedule.at(jump).open


def test_a_window_inside_the_hour_that_never_was_does_not_open():
    schedule = nightly(NEW_YORK, "02:15", "02:45", days=("sun",))

    phase = schedule.at(datetime(2026, 3, 8, 6, tzinfo=UTC))

    assert not phase.open
    assert phase.until == local(NEW_YORK, 2026, 3, 15, 2, 15)


def test_an_hour_that_comes_twice_counts_once():
    schedule = nightly(NEW_YORK, "01:15", "01:45", days=("sun",))
    first = local(NEW_YORK, 2026, 11, 1, 1, 30)
    second = local(NEW_YORK, 2026, 11, 1, 1, 30, fold=1)

    assert schedule.at(first.astimezone(UTC)).open
    assert not schedule.at(second.astimezone(UTC)).open


def test_half_hour_changes_are_found_too():
    # 2026-10-04 02:00 becomes 02:30 on Lord Howe Island.
    jump = instant(date(2026, 10, 4), time(2, 15), LORD_HOWE)

    assert jump == local(LORD_HOWE, 2026, 10, 4, 2, 30).astimezone(UTC)


zones = st.sampled_from([UTC, NEW_YORK, BERLIN, LORD_HOWE])
clock_times = st.builds("{:02}:{:02}".format, st.integers(0, 23), st.sampled_from([0, 15, 30, 59]))
windows = st.builds(
    parse_window, st.lists(st.sampled_from(ALL), min_size=1, max_size=7), clock_times, clock_times
)
instants = st.datetimes(
    datetime(2026, 1, 1),  # noqa: DTZ001 - the zone comes below
    datetime(2027, 1, 1),  # noqa: DTZ001 - the zone comes below
    timezones=st.just(UTC),
)


@given(st.lists(windows, min_size=1, max_size=4), zones, instants)
def test_each_boundary_changes_the_phase_and_lies_ahead(some, zone, now):
    schedule = Schedule(windows=tuple(some), zone=zone)
    phases = [schedule.at(now)]
    while len(phases) < 6 and phases[-1].until is not None:
        phases.append(schedule.at(phases[-1].until))

    for before, after in pairwise(phases):
        assert before.open != after.open
        assert after.until is None or after.until > before.until
        assert schedule.at(before.until - timedelta(seconds=1)).open == before.open


@given(st.lists(windows, min_size=1, max_size=3), instants)
def test_without_clock_changes_it_is_open_exactly_when_the_wall_clock_says_so(some, now):
    def inside(window):
        wall, today = now.time(), now.weekday()
        if window.start < window.end:
            return today in window.days and window.start <= wall < window.end
        early = wall < window.end and (today - 1) % 7 in window.days
        return early or (today in window.days and wall >= window.start)

    assert Schedule(windows=tuple(some)).at(now).open == any(inside(one) for one in some)


@pytest.mark.parametrize(
    ("days", "start", "end", "named"),
    [
        ([], "08:00", "09:00", "days"),
        ("mon", "08:00", "09:00", "days"),
        (["mon", "noday"], "08:00", "09:00", "noday"),
        ([3], "08:00", "09:00", "3"),
        (["mon"], "8", "09:00", "start"),
        (["mon"], "08:00", "24:01", "end"),
        (["mon"], "08:00", "09:60", "end"),
        (["mon"], 800, "09:00", "start"),
    ],
)
def test_a_window_that_makes_no_sense_is_refused_by_part(days, start, end, named):
    with pytest.raises(WindowError, match=named):
        parse_window(days, start, end)


def test_the_zone_is_the_named_one_or_that_of_the_system_or_utc(tmp_path):
    database = Path("/usr/share/zoneinfo/Europe/Berlin")
    link, copy = tmp_path / "link", tmp_path / "copy"
    if database.is_file():
        link.symlink_to(database)
        copy.write_bytes(database.read_bytes())
        assert local_zone(localtime=link) == BERLIN
        found = local_zone(localtime=copy)
        assert datetime(2026, 7, 1, tzinfo=found).utcoffset() == timedelta(hours=2)

    assert local_zone(":America/New_York", tmp_path / "none") == NEW_YORK
    assert local_zone("EST5EDT,M3.2.0,M11.1.0/../x", tmp_path / "none") == UTC
    assert local_zone(None, tmp_path / "none") == UTC
