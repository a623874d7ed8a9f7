import asyncio
import hashlib
import io
import json
import logging

import pytest
import structlog
from darkbloom_mesh import logs, telemetry
from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.body import PART_BYTES, BodyAssembler
from darkbloom_mesh.context import request_id, set_request_id
from darkbloom_mesh.credits import CreditMeter, CreditWindow
from darkbloom_mesh.errors import InvalidArgumentError
from darkbloom_mesh.testing import FakeClock, no_leaked_tasks, settle
from hypothesis import given
from hypothesis import strategies as st


def test_backoff_doubles_its_bound_up_to_the_cap() -> None:
    backoff = Backoff(lambda: 1.0)
    assert [backoff.next_s() for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    backoff.reset()
    assert backoff.next_s() == 1


@given(st.floats(0, 1, exclude_max=True))
def test_backoff_spreads_waits_over_the_whole_bound(share: float) -> None:
    backoff = Backoff(lambda: share, first_s=4)
    assert backoff.next_s() == share * 4


def test_a_window_without_credit_gives_none_until_it_is_granted() -> None:
    window = CreditWindow(2)
    assert [window.take(), window.take(), window.take()] == [True, True, False]
    window.grant(1)
    assert window.take()
    assert not window.take()


@given(st.lists(st.integers(-(2**31), 2**31)))
def test_no_grant_lifts_a_window_above_its_size(grants: list[int]) -> None:
    window = CreditWindow()
    for credits_ in grants:
        window.grant(credits_)
        assert 0 <= window.available <= 32


async def test_a_waiting_sender_wakes_with_the_grant() -> None:
    window = CreditWindow(1)
    window.take()
    async with asyncio.TaskGroup() as tasks, asyncio.timeout(30):
        waiting = tasks.create_task(window.wait())
        await settle()
        assert not waiting.done()
        window.grant(16)


@given(st.lists(st.integers(0, 100)))
def test_a_meter_grants_each_consumed_chunk_once_in_sixteens(steps: list[int]) -> None:
    meter = CreditMeter()
    granted = [meter.consumed(step) for step in steps]
    assert all(grant % 16 == 0 for grant in granted)
    assert 0 <= sum(steps) - sum(granted) < 16


def assembled(body: bytes, **changes: object) -> BodyAssembler:
    announced = {"total_size": len(body), "sha256": hashlib.sha256(body).digest(), "limit": 2**20}
    return BodyAssembler(**(announced | changes))  # type: ignore[arg-type]


@given(st.binary(min_size=1, max_size=300_000))
def test_a_body_in_parts_is_the_body(body: bytes) -> None:
    assembler = assembled(body)
    parts = [body[at : at + PART_BYTES] for at in range(0, len(body), PART_BYTES)]
    complete = [assembler.add(index, part) for index, part in enumerate(parts)]
    assert complete == [False] * (len(parts) - 1) + [True]
    assert assembler.join() == body


@pytest.mark.parametrize(
    ("index", "part"), [(1, b"ab"), (0, b""), (0, b"abcd"), (0, b"xyz"), (0, b"x" * 70_000)]
)
def test_a_part_out_of_order_too_long_or_forged_is_refused(index: int, part: bytes) -> None:
    with pytest.raises(InvalidArgumentError):
        assembled(b"abc").add(index, part)


@pytest.mark.parametrize("changes", [{"total_size": 0}, {"limit": 2}, {"sha256": b"short"}])
def test_a_malformed_announcement_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentError):
        assembled(b"abc", **changes)


def test_an_incomplete_body_does_not_join() -> None:
    assembler = assembled(b"abc")
    assembler.add(0, b"ab")
    with pytest.raises(InvalidArgumentError, match="incomplete"):
        assembler.join()


@given(st.text())
def test_a_request_id_is_adopted_only_where_it_is_harmless(text: str) -> None:
    accepted = set_request_id(text)
    assert accepted == request_id()
    assert accepted.isascii()
    assert 0 < len(accepted) <= 128
    assert "\n" not in accepted


async def test_a_fake_clock_wakes_sleepers_in_order_and_only_when_due() -> None:
    clock, woken = FakeClock(), []

    async def sleeper(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((seconds, clock.monotonic()))

    async with asyncio.TaskGroup() as tasks:
        for seconds in (30, 10, 20):
            tasks.create_task(sleeper(seconds))
        await clock.advance(25)
        assert woken == [(10, 10), (20, 20)]
        await clock.advance(5)
    assert woken[-1] == (30, 30)
    assert (clock.now() - FakeClock().now()).total_seconds() == 30


async def test_a_leaked_task_is_noticed() -> None:
    leaked = []
    with pytest.raises(AssertionError, match="leaked"):
        async with no_leaked_tasks():
            leaked.append(asyncio.ensure_future(asyncio.Event().wait()))
    leaked[0].cancel()


def test_a_metric_that_is_not_declared_is_refused() -> None:
    metrics = telemetry.Metrics(version="1")
    with pytest.raises(ValueError, match="not declared"):
        metrics.counter(telemetry.Spec("darkbloom_made_up_total", "x"))


def test_every_declared_metric_can_be_made_once() -> None:
    metrics = telemetry.Metrics(version="1")
    for spec in telemetry.DECLARED:
        make = getattr(metrics, spec.kind)
        assert make(spec) is make(spec)
        with pytest.raises(TypeError, match=f"is a {spec.kind}"):
            metrics.gauge(spec) if spec.kind == "counter" else metrics.counter(spec)
    assert len({spec.name for spec in telemetry.DECLARED}) == len(telemetry.DECLARED)


def test_a_model_outside_the_catalog_is_labelled_unknown() -> None:
    assert telemetry.model_label("dev/a", {"dev/a"}) == "dev/a"
    assert telemetry.model_label("whatever a caller typed", {"dev/a"}) == "unknown"


CANARY = "the patient said"


def logged(level: str = "info") -> io.StringIO:
    stream = io.StringIO()
    logs.configure(
        room="thing",
        version="1.2",
        build_commit="c0ffee",
        environment="development",
        level=level,
        stream=stream,
    )
    return stream


def test_an_event_has_its_constant_message_and_its_fields() -> None:
    stream = logged()
    set_request_id("req_1")
    structlog.get_logger().info("provider_registered", provider_id="prov_1")
    event = json.loads(stream.getvalue())
    assert event.pop("ts").endswith("Z")
    assert event == {
        "level": "info",
        "msg": "provider_registered",
        "service": "thing",
        "version": "1.2",
        "build_commit": "c0ffee",
        "env": "development",
        "request_id": "req_1",
        "provider_id": "prov_1",
    }


def test_an_exception_is_logged_without_its_text() -> None:
    stream = logged()

    def parse() -> None:
        try:
            {}[CANARY]
        except KeyError as error:
            raise ValueError(CANARY) from error

    try:
        parse()
    except ValueError:
        structlog.get_logger().error("rpc_failed", exc_info=True)
    event = json.loads(stream.getvalue())
    assert CANARY not in stream.getvalue()
    assert event["error_type"] == "ValueError"
    assert event["causes"][0]["error_type"] == "KeyError"
    assert event["frames"][0].startswith("test_small_parts.py:")


def test_a_value_that_is_not_json_is_logged_by_type_alone() -> None:
    class Sealed:
        def __repr__(self) -> str:
            return CANARY

    stream = logged()
    structlog.get_logger().info("odd", value=Sealed())
    assert json.loads(stream.getvalue())["value"] == "<Sealed>"


def test_a_librarys_record_keeps_its_template_and_loses_its_arguments() -> None:
    stream = logged()
    library = logging.getLogger("some.library")
    library.warning("could not parse %s", CANARY)
    library.error(f"could not parse {CANARY}")
    library.info("nothing")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert CANARY not in stream.getvalue()
    assert first["template"] == "could not parse %s"
    assert second["logger"] == "some.library"
