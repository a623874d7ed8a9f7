"""What a rollout decides from what it counted."""

import dataclasses
from datetime import timedelta

import pytest
from darkbloom_mesh.errors import InvalidArgumentError
from darkbloom_mesh.testing import EPOCH
from darkbloom_registry.errors import RolloutEndedError
from darkbloom_registry.model import Alias
from darkbloom_registry.rolling import moved_alias
from darkbloom_registry.rollouts import (
    DEFAULT_STEPS,
    TTFT_BOUNDS_S,
    Action,
    Counts,
    Gates,
    Rollout,
    RolloutState,
    breach,
    change,
    check_gates,
    check_steps,
    judge,
)

SOAK = timedelta(minutes=10)
LATER = EPOCH + SOAK


def rollout(**fields: object) -> Rollout:
    made = Rollout(
        rollout_id="roll_1",
        alias="name",
        from_build="org/old",
        to_build="org/new",
        steps=(10, 100),
        gates=Gates(min_requests=20, soak=SOAK),
        actor="somebody",
        create_time=EPOCH,
        step_time=EPOCH,
        update_time=EPOCH,
    )
    return dataclasses.replace(made, **fields)  # type: ignore[arg-type] # named by the tests


def ttft(*by_bucket: int) -> tuple[int, ...]:
    return (*by_bucket, *(0,) * (len(TTFT_BOUNDS_S) + 1 - len(by_bucket)))


GOOD = Counts(successes=20, ttft_buckets=ttft(20))


def test_a_step_is_passed_after_its_time_and_its_requests() -> None:
    waiting = rollout(counts=GOOD)
    assert judge(waiting, LATER - timedelta(seconds=1)) is waiting
    lonely = rollout(counts=Counts(successes=19))
    assert judge(lonely, LATER) is lonely

    second = judge(waiting, LATER)
    assert (second.step, second.percent, second.state) == (1, 100, RolloutState.RUNNING)
    assert second.counts == Counts()
    assert second.step_time == LATER
    assert judge(second, LATER) is second

    done = judge(dataclasses.replace(second, counts=GOOD), LATER + SOAK)
    assert done.state is RolloutState.DONE
    assert judge(done, LATER + SOAK) is done


@pytest.mark.parametrize(
    ("counts", "gates", "said"),
    [
        (Counts(load_failures=1), Gates(), "load_failures: 1, at most 0"),
        (Counts(untrusted=2), Gates(max_untrusted=1), "untrusted: 2, at most 1"),
        (Counts(failures=3), Gates(), "success: 3 of 3 attempts failed"),
        (Counts(successes=900, failures=51), Gates(), "success: 51 of 951"),
        (
            Counts(successes=50, ttft_buckets=ttft(0, 0, 0, 47, 3)),
            Gates(max_ttft_p95=timedelta(seconds=1)),
            "ttft_p95: above 1 s",
        ),
    ],
)
def test_a_broken_gate_turns_the_name_back_before_the_step_is_over(
    counts: Counts, gates: Gates, said: str
) -> None:
    judged = judge(rollout(counts=counts, gates=gates), EPOCH)
    assert judged.state is RolloutState.REVERTED
    assert judged.reason.startswith(f"step 1 (10 %): {said}")


@pytest.mark.parametrize(
    ("counts", "gates"),
    [
        (Counts(failures=2), Gates()),
        (Counts(successes=950, failures=50), Gates()),
        (Counts(load_failures=3), Gates(max_load_failures=3)),
        (
            Counts(successes=49, ttft_buckets=ttft(0, 0, 0, 0, 49)),
            Gates(max_ttft_p95=timedelta(seconds=1)),
        ),
        (
            Counts(successes=60, ttft_buckets=ttft(0, 0, 0, 57, 3)),
            Gates(max_ttft_p95=timedelta(seconds=1)),
        ),
    ],
)
def test_what_a_gate_lets_pass_breaks_nothing(counts: Counts, gates: Gates) -> None:
    assert breach(gates, counts) is None


def test_a_paused_one_stays_but_still_turns_back() -> None:
    paused = change(rollout(counts=GOOD), Action.PAUSE, "", EPOCH)
    assert judge(paused, LATER) is paused
    assert judge(change(paused, Action.RESUME, "", LATER), LATER).step == 1
    bad = dataclasses.replace(paused, counts=Counts(load_failures=1))
    assert judge(bad, EPOCH).state is RolloutState.REVERTED


def test_an_operator_may_revert_but_not_wake_what_has_ended() -> None:
    reverted = change(rollout(), Action.REVERT, "it smells", EPOCH)
    assert (reverted.state, reverted.reason) == (RolloutState.REVERTED, "it smells")
    assert change(reverted, Action.REVERT, "again", LATER) is reverted
    with pytest.raises(RolloutEndedError):
        change(reverted, Action.RESUME, "", LATER)
    with pytest.raises(InvalidArgumentError):
        change(rollout(), Action.PAUSE, "x" * 257, EPOCH)


def test_the_name_follows_its_rollout_and_forgets_a_bad_build() -> None:
    alias = Alias(
        alias_id="name",
        display_name="Name",
        desired_build="org/old",
        previous_build="org/older",
        active=True,
        traffic_percent=None,
    )
    moving = moved_alias(alias, rollout())
    assert (moving.desired_build, moving.previous_build, moving.traffic_percent) == (
        "org/new",
        "org/old",
        10,
    )
    back = moved_alias(moving, rollout(state=RolloutState.REVERTED))
    assert (back.desired_build, back.previous_build, back.traffic_percent) == ("org/old", "", None)
    done = moved_alias(moving, rollout(state=RolloutState.DONE))
    assert (done.desired_build, done.previous_build, done.traffic_percent) == (
        "org/new",
        "org/old",
        None,
    )


def test_steps_rise_to_all() -> None:
    assert check_steps(()) == DEFAULT_STEPS
    assert check_steps((100,)) == (100,)
    for wrong in ((0, 100), (50,), (50, 50, 100), (100, 50), tuple(range(80, 101))):
        with pytest.raises(InvalidArgumentError):
            check_steps(wrong)


@pytest.mark.parametrize(
    "gates",
    [
        Gates(min_requests=-1),
        Gates(min_success_percent=101),
        Gates(max_load_failures=-1),
        Gates(max_untrusted=1_000_001),
        Gates(soak=timedelta(seconds=-1)),
        Gates(soak=timedelta(days=31)),
        Gates(max_ttft_p95=timedelta()),
    ],
)
def test_gates_have_bounds(gates: Gates) -> None:
    with pytest.raises(InvalidArgumentError):
        check_gates(gates)


def test_the_slow_tail_is_above_every_bound() -> None:
    counts = Counts(successes=10, ttft_buckets=(*(0,) * len(TTFT_BOUNDS_S), 10))
    assert counts.ttft_p95 == timedelta.max
    assert Counts().ttft_p95 is None
