"""Times and bounds of history questions."""

from datetime import UTC, datetime, timedelta

import pytest
from darkbloom_billing.history.questions import QUESTIONS, moment

NOW = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("30m", timedelta(minutes=30)),
        ("24h", timedelta(days=1)),
        ("7d", timedelta(days=7)),
        ("2026-04-30T00:00:00Z", timedelta(days=1)),
        ("2026-05-01T02:00:00+02:00", timedelta()),
    ],
)
def test_a_time_is_an_age_or_a_moment(text: str, age: timedelta) -> None:
    assert moment(text, NOW) == NOW - age


@pytest.mark.parametrize(
    "text", ["", "h", "24", "2026-04-30T00:00:00", "-1h", "1.5h", "9" * 12 + "w"]
)
def test_anything_else_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"time|isoformat"):
        moment(text, NOW)


def test_every_question_is_bounded_and_reads_nobodys_name() -> None:
    for question in QUESTIONS.values():
        assert "LIMIT $3" in question.sql
        assert ">= $1" in question.sql
        for word in ("email", "key_hash", "app_user", "api_key ", "note"):
            assert word not in question.sql
