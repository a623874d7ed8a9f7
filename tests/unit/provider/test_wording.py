"""Times as people say them."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from darkbloom_provider.wording import span, until


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3_725, "1 h 2 min"), (90_000, "1 d 1 h")],
)
def test_a_span_is_said_in_its_largest_units(seconds, said):
    assert span(seconds) == said


def test_a_moment_is_said_on_the_owners_clock_with_its_distance():
    now = datetime(2026, 1, 2, 20, 0, tzinfo=UTC)
    there = ZoneInfo("Asia/Tokyo")
    assert until(now + timedelta(hours=2, minutes=30), now, there) == "Sat 07:30, in 2 h 30 min"
