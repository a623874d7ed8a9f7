"""What the network wants of a machine, and when each wish is tried again."""

from darkbloom.router.v1.provider_link_pb2 import DesiredModel, DesiredModels, OperationStatus
from darkbloom_provider.wish_messages import read_wishes, wish_status
from darkbloom_provider.wishes import (
    MAX_WISHES,
    RETRY_S,
    Reason,
    Tracked,
    Wish,
    Wishes,
    WishState,
)

A, B = Wish(build="org/a", version="v1", weight_hash="1"), Wish(build="org/b", version="v1")


def only(wishes: Wishes) -> Tracked:
    (tracked,) = wishes.all()
    return tracked


def test_wishes_are_tried_in_order_and_once() -> None:
    wishes = Wishes()
    wishes.desire([A, B], 1)

    assert wishes.due(0.0) == A
    wishes.done(A)
    assert wishes.due(0.0) == B
    wishes.done(B)
    assert wishes.due(1e9) is None


def test_a_failure_is_tried_again_after_each_wait_and_then_given_up() -> None:
    wishes, now = Wishes(), 0.0
    wishes.desire([A], 1)
    for wait in RETRY_S:
        wishes.failed(A, Reason.UNREACHABLE, now)
        assert only(wishes).state is WishState.FAILED
        assert wishes.due(now + wait - 1) is None
        now += wait
        assert wishes.due(now) == A

    wishes.failed(A, Reason.UNREACHABLE, now)
    assert (only(wishes).state, only(wishes).reason) == (WishState.REFUSED, Reason.UNREACHABLE)
    assert wishes.due(1e9) is None


def test_what_waiting_cannot_change_is_refused_at_once() -> None:
    wishes = Wishes()
    wishes.desire([A], 1)
    wishes.failed(A, Reason.DOES_NOT_FIT, 0.0)

    assert only(wishes).state is WishState.REFUSED


def test_a_new_list_gives_new_tries_and_the_same_list_does_not() -> None:
    wishes = Wishes()
    wishes.desire([A], 1)
    wishes.failed(A, Reason.DOES_NOT_FIT, 0.0)
    wishes.desire([A], 1)
    assert wishes.due(1e9) is None
    wishes.desire([A], 2)
    assert wishes.due(0.0) == A

    wishes.done(A)
    wishes.desire([A], 3)
    assert only(wishes).state is WishState.DONE
    newer = Wish(build="org/a", version="v2", weight_hash="2")
    wishes.desire([newer], 3)
    assert wishes.due(0.0) == newer


def test_what_is_on_the_list_no_more_is_forgotten_unless_it_was_commanded() -> None:
    wishes = Wishes()
    wishes.desire([A], 1)
    assert wishes.command("org/c")
    wishes.desire([], 2)

    assert [tracked.wish.build for tracked in wishes.all()] == ["org/c"]
    assert not wishes.holds(A)
    wishes.failed(A, Reason.BUSY, 0.0)
    wishes.progress(A, 1, 2)
    assert len(wishes.all()) == 1


def test_there_is_a_bound_on_wishes() -> None:
    wishes = Wishes()
    wishes.desire([Wish(build=f"org/{number}") for number in range(MAX_WISHES + 5)], 1)

    assert len(wishes.all()) == MAX_WISHES
    assert not wishes.command("org/more")


def test_lists_are_read_and_states_are_written_in_the_words_of_the_protocol() -> None:
    message = DesiredModels(
        models=[
            DesiredModel(desired_build="org/a", version="v1", aggregate_sha256="1"),
            DesiredModel(desired_build="../a", version="v1"),
            DesiredModel(desired_build="org/unpublished"),
            DesiredModel(desired_build="org/b", version=".hidden"),
        ]
    )
    assert read_wishes(message) == [A]

    wishes = Wishes()
    wishes.desire([A], 1)
    assert wish_status(only(wishes)).status == OperationStatus.OPERATION_STATUS_STARTED
    wishes.progress(A, 5, 10)
    told = wish_status(only(wishes))
    assert (told.status, told.bytes_done, told.bytes_total) == (
        OperationStatus.OPERATION_STATUS_DOWNLOADING,
        5,
        10,
    )
    wishes.failed(A, Reason.DISK_FULL, 0.0)
    assert wish_status(only(wishes)).error == "disk_full"
    wishes.done(A)
    assert wish_status(only(wishes)).status == OperationStatus.OPERATION_STATUS_VERIFIED
