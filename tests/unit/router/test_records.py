"""Decision records: what a row says, and that nobody ever waits for one."""

import asyncio
from collections.abc import Sequence

import pytest
from darkbloom.router.v1 import gateway_lane_pb2 as gw
from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.errors import StoreUnavailableError
from darkbloom_mesh.testing import FakeClock
from darkbloom_router.failures import Code
from darkbloom_router.model import Gate
from darkbloom_router.records.rows import AttemptRow, RefusalRow, Row
from darkbloom_router.records.scribe import Scribe, could_have_served
from darkbloom_router.records.writing import BATCH, LIMIT, SWEEP_AGAIN_S, SWEEP_ROWS, RecordQueue

from tests.unit.router.desk import Desk, K


def recorded(*names: str) -> tuple[Desk, list[Row]]:
    """Return a router whose records are kept in a list."""
    desk, rows = Desk(*names), list[Row]()
    scribe = Scribe(rows.append, desk.timers.now, lambda: desk.clock.now().timestamp())
    desk.dispatcher.last_words.scribe = scribe
    desk.ends.over = scribe.ended
    desk.offers_made.chosen = scribe.chosen
    return desk, rows


def attempts(rows: list[Row]) -> list[AttemptRow]:
    return [row for row in rows if isinstance(row, AttemptRow)]


def test_a_row_says_who_was_chosen_against_whom_and_how_it_ended() -> None:
    desk, rows = recorded("a", "b")
    _, attempt = desk.dispatched()
    desk.down(attempt, K.FRAME_KIND_ACCEPTED, b"")
    desk.down(attempt, K.FRAME_KIND_BODY_PART, b"")
    desk.chunk(attempt)
    desk.chunk(attempt, 1, K.FRAME_KIND_CHUNK_FINAL)
    desk.terminal(attempt)
    desk.close(attempt)
    [row] = attempts(rows)
    assert (row.outcome, row.number, row.hedge) == ("success", 1, False)
    assert row.candidates == 2
    assert row.runner_up not in ("", row.provider_id)
    assert row.runner_up_ms is not None
    assert row.runner_up_ms >= row.price_ms
    assert row.write_submitted
    assert row.provider_accepted
    assert row.provider_complete_observed
    # The body never came in this test, and submitting a request is not writing it.
    assert not row.write_completed


async def test_each_attempt_and_the_refusal_have_a_row_of_their_own() -> None:
    desk, rows = recorded("a", "b")
    stream, attempt = desk.dispatched()
    desk.error(attempt, Code.GENERATION_FAILURE)
    desk.error(desk.seal(desk.offers(stream)[-1]), Code.GENERATION_FAILURE)
    assert [row.outcome for row in attempts(rows)] == ["provider_error"] * 2
    assert [row.path for row in attempts(rows)][1] == "alternate"
    refusal = rows[-1]
    assert isinstance(refusal, RefusalRow)
    assert (refusal.http_status, refusal.attempts) == (502, 2)
    assert refusal.gates == {"excluded": 2}


async def test_a_race_has_two_rows() -> None:
    desk, rows = recorded("a", "b")
    stream, first = desk.dispatched()
    await desk.pass_time(1.1)
    second = desk.seal(desk.offers(stream)[-1])
    desk.chunk(second)
    desk.hang_up(second)
    [lost] = attempts(rows)
    assert (lost.attempt_id, lost.outcome, lost.hedge) == (first.attempt_id, "lost_race", False)
    await desk.pass_time(31)
    won = attempts(rows)[-1]
    assert (won.attempt_id, won.hedge, won.path) == (second.attempt_id, True, "hedge")


def test_a_row_names_nobody_and_nothing_of_the_prompt() -> None:
    desk, rows = recorded("a")
    desk.dispatched()
    desk.dispatcher.draining = True
    desk.open()
    assert "consumer" not in repr(rows)
    [refusal] = rows
    assert isinstance(refusal, RefusalRow)
    assert refusal.reason == "draining"
    assert refusal.could_have_served is None


@pytest.mark.parametrize(
    ("gates", "answer"),
    [
        (None, None),
        ({}, False),
        ({Gate.UNTRUSTED: 3}, False),
        ({Gate.UNTRUSTED: 3, Gate.NO_HEADROOM: 1}, True),
        ({Gate.TTFT_CEILING: 1}, True),
    ],
)
def test_the_counterfactual_looks_at_room_and_time(
    gates: dict[Gate, int] | None, answer: bool | None
) -> None:
    assert could_have_served(gates) is answer


class Store:
    """Keeps batches, or is away."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.heard: list[tuple[int, int]] = []
        self.swept: list[float] = []
        self.old = 0
        self.away = False
        self.locked = False

    async def open(self) -> None:
        if self.away:
            raise StoreUnavailableError("away")

    async def write(self, rows: Sequence[Row]) -> None:
        self.batches.append(len(rows))

    def told(self, rows: int, waiting: int) -> None:
        self.heard.append((rows, waiting))

    async def sweep(self, before_unix: float, now_unix: float) -> int:
        assert now_unix - before_unix == 60.0
        self.swept.append(before_unix)
        if self.locked:
            raise StoreUnavailableError("a lock is held")
        gone = min(self.old, SWEEP_ROWS)
        self.old -= gone
        return gone


def queue(store: Store, clock: FakeClock, lost: list[int]) -> RecordQueue:
    return RecordQueue(
        store, clock, Backoff(lambda: 0.5), dropped=lost.append, wrote=store.told, keep_s=60.0
    )


ROW = RefusalRow(
    request_id="req_1",
    build="b",
    http_status=429,
    reason="machine_busy",
    attempts=0,
    gates={},
    could_have_served=True,
    waited_ms=0,
    end_unix=0.0,
)


async def test_rows_go_in_batches_and_old_ones_go_away() -> None:
    store, clock, lost = Store(), FakeClock(), list[int]()
    rows = queue(store, clock, lost)
    for _ in range(2 * BATCH + 1):
        rows.add(ROW)
    await rows.flush()
    assert store.batches == [BATCH, BATCH, 1]
    assert store.heard == [(BATCH, BATCH + 1), (BATCH, 1), (1, 0)]
    assert store.swept == [clock.now().timestamp() - 60.0]
    assert not lost


async def test_under_pressure_rows_are_dropped_and_counted() -> None:
    store, clock, lost = Store(), FakeClock(), list[int]()
    rows = queue(store, clock, lost)
    for _ in range(LIMIT + 5):
        rows.add(ROW)
    assert len(rows) == LIMIT
    assert sum(lost) == 5


async def test_a_store_that_is_away_costs_its_batch_and_stops_nobody() -> None:
    store, clock, lost = Store(), FakeClock(), list[int]()
    store.away = True
    rows = queue(store, clock, lost)
    rows.add(ROW)
    async with asyncio.TaskGroup() as tasks:
        flushing = tasks.create_task(rows.flush())
        while not lost:
            await clock.advance(1)
        await clock.advance(60)
        await flushing
    assert lost == [1]
    store.away = False
    rows.add(ROW)
    await rows.flush()
    assert store.batches == [1]


def test_a_declined_offer_is_a_row_without_a_write() -> None:
    desk, rows = recorded("a")
    stream = desk.open()
    desk.decline(desk.offers(stream)[-1], gw.DECLINE_REASON_PRICE)
    [row] = attempts(rows)
    assert (row.outcome, row.write_submitted) == ("price", False)


async def test_an_hour_of_a_busy_mesh_is_deleted_batch_after_batch() -> None:
    store, clock = Store(), FakeClock()
    waiting = queue(store, clock, [])
    store.old = 2 * SWEEP_ROWS + 1
    for _ in range(5):
        waiting.add(ROW)
        await waiting.flush()
    assert (store.old, len(store.swept)) == (0, 3)


async def test_a_sweep_that_fails_costs_no_row_and_is_tried_again_later() -> None:
    store, clock, lost = Store(), FakeClock(), list[int]()
    rows = queue(store, clock, lost)
    store.locked, store.old = True, 1
    for _ in range(3):
        rows.add(ROW)
        # Without a wait: the clock stands still.
        await rows.flush()
    assert (store.batches, lost, len(store.swept)) == ([1, 1, 1], [], 1)

    store.locked = False
    clock.jump(SWEEP_AGAIN_S)
    rows.add(ROW)
    await rows.flush()
    assert (store.old, len(store.swept)) == (0, 2)
