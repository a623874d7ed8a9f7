"""The line to billing, failures and refusals, timers and lines."""

import asyncio
from collections.abc import Sequence

import pytest
from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.config import ConfigError, load
from darkbloom_mesh.errors import InvalidArgumentError, StoreUnavailableError
from darkbloom_mesh.testing import FakeClock, settle
from darkbloom_router import failures, refusals, registration, watches
from darkbloom_router.config import RouterConfig
from darkbloom_router.failures import Code, Detail, Kind, Ladder, judge
from darkbloom_router.model import Demand, Gate, Opened, OwnerPolicy, Signed
from darkbloom_router.retry_after import retry_after_s
from darkbloom_router.settlement import Cause, End, Free, Settle, SettlementDesk
from darkbloom_router.timers import Timers
from darkbloom_router.versions import version_key
from darkbloom_router.waiting import Waiting
from hypothesis import given
from hypothesis import strategies as st

SIGNED = Signed(document=b"{}", signature=b"s")


class Billing:
    """Answers SETTLED and RELEASED, unless told to fail."""

    def __init__(self) -> None:
        self.failures: list[Exception] = []
        self.poison = ""
        self.batches: list[int] = []
        self.seen: list[str] = []

    async def settle(self, orders: Sequence[Settle]) -> Sequence[End]:
        return self._answer(orders, End.SETTLED)

    async def release(self, orders: Sequence[Free]) -> Sequence[End]:
        return self._answer(orders, End.RELEASED)

    async def renew(self, request_ids: Sequence[str], lease_s: float) -> Sequence[str]:
        return []

    def _answer(self, orders: Sequence[Settle] | Sequence[Free], end: End) -> Sequence[End]:
        if self.failures:
            raise self.failures.pop(0)
        if any(order.request_id == self.poison for order in orders):
            raise InvalidArgumentError("one of these cannot be read")
        self.batches.append(len(orders))
        self.seen.extend(order.request_id for order in orders)
        return [end] * len(orders)


def order(name: str) -> Settle:
    return Settle(
        request_id=name, attempt_id=name, verdict=SIGNED, terminal=None, opened=Opened(frames=1)
    )


async def run(billing: Billing, orders: list[Settle | Free], limit: int = 1000) -> dict[str, End]:
    clock, ends = FakeClock(), {}
    desk = SettlementDesk(
        billing, clock, Backoff(lambda: 0.5), limit=limit, count=lambda _word: None
    )
    task = asyncio.ensure_future(desk.run())
    for item in orders:
        desk.submit(item, lambda end, name=item.request_id: ends.__setitem__(name, end))
    for _ in range(50):
        await clock.advance(1)
        await settle()
    assert not len(desk)
    await desk.flush()
    task.cancel()
    await asyncio.wait({task})
    return ends


async def test_what_waits_travels_together_in_bounded_batches() -> None:
    billing = Billing()
    ends = await run(billing, [order(f"req_{index}") for index in range(150)])
    assert billing.batches == [64, 64, 22]
    assert set(ends.values()) == {End.SETTLED}


async def test_an_outage_loses_nothing_and_keeps_the_order() -> None:
    billing = Billing()
    billing.failures = [StoreUnavailableError("down"), StoreUnavailableError("down")]
    ends = await run(billing, [order("a"), Free(request_id="b", cause=Cause.REFUSED), order("c")])
    assert ends == {"a": End.SETTLED, "b": End.RELEASED, "c": End.SETTLED}
    assert billing.seen == ["a", "c", "b"]


async def test_an_order_that_billing_cannot_read_holds_up_nobody() -> None:
    billing = Billing()
    billing.poison = "bad"
    ends = await run(billing, [order("a"), order("bad"), order("c")])
    assert ends == {"a": End.SETTLED, "bad": End.REJECTED, "c": End.SETTLED}


async def test_a_full_line_takes_nothing_more() -> None:
    words: list[str] = []
    desk = SettlementDesk(Billing(), FakeClock(), Backoff(lambda: 0.5), limit=1, count=words.append)
    assert desk.submit(order("a"), print)
    assert not desk.submit(order("b"), print)
    assert words == ["dropped"]


@pytest.mark.parametrize(
    ("code", "detail", "status", "kind", "http"),
    [
        (Code.INVALID_REQUEST, 0, 400, Kind.FINAL, 400),
        (Code.CAPACITY, Detail.DRAINING, 503, Kind.FREE, 503),
        (Code.CAPACITY, Detail.DEADLINE_UNREACHABLE, 503, Kind.LATE, 429),
        (Code.CAPACITY, Detail.QUEUE_FULL, 503, Kind.CAPACITY, 429),
        (Code.CAPACITY, Detail.REQUEST_EXCEEDS_CONTEXT, 400, Kind.FINAL, 429),
        (Code.TEMPLATE_RENDER, Detail.JINJA_NULL_BRIDGE, 422, Kind.FINAL, 422),
        (Code.BOUND_EXCEEDED, 0, 400, Kind.FINAL, 400),
        (Code.ENCRYPTION_FAILURE, 0, 400, Kind.FAULT, 502),
        (Code.GENERATION_FAILURE, 0, 500, Kind.FAULT, 502),
        (Code.MODEL_UNAVAILABLE, 0, 503, Kind.FAULT, 503),
        (Code.INTERNAL_FAILURE, 0, 504, Kind.FAULT, 504),
        (99, 99, 200, Kind.FAULT, 502),
    ],
)
def test_a_failure_is_judged_by_closed_words(
    code: int, detail: int, status: int, kind: Kind, http: int
) -> None:
    failure = judge(code, detail, status)
    assert (failure.kind, failure.refusal.http_status) == (kind, http)


def test_the_last_answer_is_the_most_telling_one() -> None:
    ladder = Ladder(max_attempts=64)
    ladder.note(failures.STALLED)
    assert ladder.verdict is refusals.FIRST_CHUNK_TIMEOUT
    ladder.note(judge(Code.CAPACITY, 0, 503))
    assert ladder.verdict is refusals.OVERSIZED
    ladder.note(failures.LOST)
    assert ladder.verdict is refusals.PROVIDER_LOST
    assert not ladder.ended
    ladder.note(judge(Code.INVALID_REQUEST, 0, 400))
    assert ladder.verdict is refusals.CLIENT_ERROR
    assert ladder.ended


OWN = Demand(build="b", policy=OwnerPolicy.EXCLUSIVE)
NAMED = Demand(build="b", policy=OwnerPolicy.EXCLUSIVE, machine="prov_1")


@pytest.mark.parametrize(
    ("gates", "demand", "answer"),
    [
        ({}, Demand(build="b"), refusals.NO_PROVIDER),
        ({Gate.NO_HEADROOM: 1, Gate.UNTRUSTED: 5}, Demand(build="b"), refusals.MACHINE_BUSY),
        ({Gate.MODEL_TOO_LARGE: 2}, Demand(build="b"), refusals.TOO_LARGE),
        (
            {Gate.MODEL_TOO_LARGE: 2, Gate.NOT_SERVING_MODEL: 9},
            Demand(build="b"),
            refusals.TOO_LARGE,
        ),
        ({Gate.VISION: 2}, Demand(build="b"), refusals.INCAPABLE),
        ({Gate.TRUST_FLOOR: 2}, Demand(build="b"), refusals.NO_PROVIDER),
        (
            {Gate.NO_HEADROOM: 1},
            Demand(build="b", policy=OwnerPolicy.EXCLUSIVE),
            refusals.OWN_MACHINE_BUSY,
        ),
        (
            {Gate.ALLOWLIST: 7},
            Demand(build="b", policy=OwnerPolicy.EXCLUSIVE),
            refusals.OWN_MACHINE_OFFLINE,
        ),
        ({Gate.ALLOWLIST: 7, Gate.NOT_SERVING_MODEL: 1}, OWN, refusals.OWN_MODEL_NOT_LOADED),
        ({Gate.ALLOWLIST: 7, Gate.SLOT_CRASHED: 1}, OWN, refusals.OWN_MODEL_NOT_LOADED),
        ({Gate.ALLOWLIST: 7, Gate.VISION: 1}, OWN, refusals.INCAPABLE),
        ({Gate.ALLOWLIST: 7, Gate.MODEL_TOO_LARGE: 1}, OWN, refusals.TOO_LARGE),
        ({Gate.ALLOWLIST: 7, Gate.UNTRUSTED: 1}, OWN, refusals.OWN_MACHINE_OFFLINE),
        (
            {Gate.ALLOWLIST: 7, Gate.NO_HEADROOM: 1, Gate.NOT_SERVING_MODEL: 1},
            OWN,
            refusals.OWN_MACHINE_BUSY,
        ),
        ({Gate.ALLOWLIST: 8}, NAMED, refusals.MACHINE_NOT_FOUND),
    ],
)
def test_a_refusal_follows_from_who_failed_where(
    gates: dict[Gate, int], demand: Demand, answer: refusals.Refusal
) -> None:
    assert refusals.for_gates(gates, demand) is answer


def test_every_429_says_when_to_come_back_and_a_missing_model_does_not() -> None:
    found = [value for value in vars(refusals).values() if isinstance(value, refusals.Refusal)]
    assert all(item.retry_after_s for item in found if item.http_status == 429)
    assert refusals.UNAVAILABLE.retry_after_s is None
    assert [retry_after_s(waiting) for waiting in (0, 5, 99)] == [2, 15, 30]


def test_timers_fire_in_order_and_cancelled_ones_never() -> None:
    clock, fired = FakeClock(), []
    timers = Timers(clock)
    timers.after(2, lambda: fired.append("b"))
    timers.after(1, lambda: fired.append("a"))
    gone = timers.after(1, lambda: fired.append("never"))
    gone.cancel()
    gone.cancel()
    clock.jump(3)
    timers.fire()
    assert fired == ["a", "b"]
    assert len(timers) == 0


def test_cancelled_timers_do_not_pile_up() -> None:
    timers = Timers(FakeClock())
    for _ in range(5000):
        timers.after(600, print).cancel()
    assert len(timers._heap) < 3000


def test_a_line_is_first_in_first_out_and_bounded() -> None:
    line: Waiting[str] = Waiting(2)
    assert line.join("b", "x", 1.0, "one")
    assert line.join("b", "y", 2.0, "two")
    assert not line.join("b", "z", 3.0, "three")
    assert line.line("b") == ["x", "y"]
    assert line.oldest_age_s("b", 4.0) == 3.0
    assert line.leave("b", "x")
    assert not line.leave("b", "x")
    assert line.depth("b") == 1


@pytest.mark.parametrize(
    ("older", "newer"),
    [("1.2.3", "1.10.0"), ("1.0.0-rc1", "1.0.0"), ("nonsense", "0.0.1"), ("", "0")],
)
def test_versions_compare_by_their_numbers(older: str, newer: str) -> None:
    assert version_key(older) < version_key(newer)


@given(st.one_of(st.binary(max_size=100), st.from_regex(r"\{.*\}").map(str.encode)))
def test_unreadable_documents_name_nobody(data: bytes) -> None:
    registration.claimed_identity(data)
    watches.read_revocation(data)


def test_production_insists_on_hardware(tmp_path) -> None:
    token = tmp_path / "token"
    token.write_text("t" * 40)
    environ = {"DARKBLOOM_ROUTER_MIN_TRUST": "none", "DARKBLOOM_MESH_TOKEN_FILE": str(token)}
    with pytest.raises(ConfigError, match="must be hardware in production"):
        load(RouterConfig, "router", environ)
    config = load(RouterConfig, "router", {**environ, "DARKBLOOM_ENV": "development"})
    assert config.min_trust == "none"
