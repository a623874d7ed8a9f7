"""Windows as people type them."""

import pytest
from darkbloom_provider.schedule import WindowError, parse_window
from darkbloom_provider.window_words import as_row, parse_words


@pytest.mark.parametrize(
    ("typed", "window"),
    [
        ("mon-fri 22:00-06:00", "mon,tue,wed,thu,fri 22:00-06:00"),
        ("sat-mon 1:00 to 2:30", "mon,sat,sun 01:00-02:30"),
        ("Sunday, tue 09:00-17:00", "tue,sun 09:00-17:00"),
        ("thursday-friday 09:00-17:00", "thu,fri 09:00-17:00"),
        ("weekend", "sat,sun 00:00-00:00"),
        ("weekdays,sun 8:00-9:00", "mon,tue,wed,thu,fri,sun 08:00-09:00"),
        ("01:00-05:00", "mon,tue,wed,thu,fri,sat,sun 01:00-05:00"),
        ("mon-mon 01:00-05:00", "mon 01:00-05:00"),
    ],
)
def test_what_is_typed_becomes_a_window_and_survives_the_file(typed, window):
    found = parse_words(typed)
    assert str(found) == window
    row = as_row(found)
    assert parse_window(row["days"], row["start"], row["end"]) == found


@pytest.mark.parametrize(
    "typed", ["", "mon", "mon 25:00-26:00", "moon 01:00-02:00", "mon-moon 01:00-02:00", "mon 1-2"]
)
def test_what_is_no_window_is_refused_in_words(typed):
    with pytest.raises(WindowError):
        parse_words(typed)
