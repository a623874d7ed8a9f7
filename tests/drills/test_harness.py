"""The harness itself: what is judged, what is skipped, what a failed play becomes."""

from typing import Any

import pytest

from tests.drills.catalogue import every_drill
from tests.drills.drill import Drill, Outcome
from tests.drills.needs import Need
from tests.drills.running import play_all, skipped, unexpected
from tests.drills.stage import Stage
from tests.drills.test_runbooks import RUNBOOKS


def drill(outcome: Outcome | Exception, **fields: Any) -> Drill:
    async def play(_stage: Stage) -> Outcome:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    known: dict[str, Any] = {"name": "a-drill", "claim": "holds", "runbooks": ("deploy",)}
    return Drill(**{**known, **fields}, play=play)


def result(one: Drill) -> dict[str, object]:
    return play_all([one], seed=1, say=lambda _text: None)[one.name]


def test_a_loss_where_nothing_may_be_lost_is_unexpected() -> None:
    found = result(drill(Outcome(recovery_s=1.234, lost_requests=2, lost_micros=15_000)))
    assert found == {
        "lost_requests": 2,
        "lost_cents": 1.5,
        "recovery_s": 1.23,
        "expected": "nothing",
        "unexpected": ["2 requests lost", "1.5 cents lost"],
    }
    assert unexpected({"a-drill": found}) == ["a-drill: 2 requests lost", "a-drill: 1.5 cents lost"]


def test_a_documented_loss_is_expected_and_whole_cents_are_whole() -> None:
    fields: dict[str, Any] = {"expected": "two cents", "allowed_micros": 20_000}
    found = result(drill(Outcome(recovery_s=0, lost_micros=20_000), **fields))
    assert (found["lost_cents"], found["unexpected"]) == (2, [])


def test_money_beyond_the_documented_loss_is_unexpected() -> None:
    broken = Outcome(recovery_s=0, lost_requests=3, lost_micros=100)
    for allowed in (0, 99):
        found = result(drill(broken, expected="what had begun", allowed_micros=allowed))
        assert found["unexpected"] == ["0.01 cents lost"]
    with pytest.raises(ValueError, match="documents no loss"):
        drill(broken, allowed_micros=1)


def test_a_play_that_fails_is_a_deviation() -> None:
    found = result(drill(AssertionError("not within 30 s: an answer")))
    assert found["unexpected"] == ["did not end: not within 30 s: an answer"]


def test_what_the_machine_lacks_skips_by_name() -> None:
    found = result(drill(AssertionError(), needs=(Need("a thing", lambda: "no thing here"),)))
    assert found == {"skipped": "no thing here", "expected": "nothing"}
    assert unexpected({"a-drill": found}) == []
    assert skipped({"a-drill": found, "other": {}}) == ["a-drill"]


def test_every_drill_names_runbooks_that_exist() -> None:
    for one in every_drill().values():
        assert set(one.runbooks) <= set(RUNBOOKS), one.name
