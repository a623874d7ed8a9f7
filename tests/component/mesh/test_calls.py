"""Client channel and server guard against each other, over real loopback gRPC."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from darkbloom.common.v1.error_reason_pb2 import ErrorReason
from darkbloom.common.v1.page_pb2 import PageRequest
from darkbloom_mesh import errors, logs, telemetry
from darkbloom_mesh.channel import call_metadata, channel
from darkbloom_mesh.config import Secret
from darkbloom_mesh.context import request_id, set_request_id
from darkbloom_mesh.errors import (
    DeadlineError,
    InternalError,
    MeshError,
    UnauthenticatedError,
    from_rpc_error,
)
from darkbloom_mesh.interceptors import CallGuard
from darkbloom_mesh.testing import serve_ephemeral

TOKEN = Secret("t" * 40)
CANARY = "the patient said"
Behaviour = Callable[[PageRequest, Any], Any]


def registrar(behaviour: Behaviour) -> Callable[[grpc.aio.Server], None]:
    async def watch(request: PageRequest, context: Any) -> AsyncIterator[PageRequest]:
        for _ in range(2):
            yield await behaviour(request, context)

    def register(server: grpc.aio.Server) -> None:
        both = PageRequest.FromString, PageRequest.SerializeToString
        methods = {
            "Call": grpc.unary_unary_rpc_method_handler(behaviour, *both),
            "Watch": grpc.unary_stream_rpc_method_handler(watch, *both),
        }
        generic = grpc.method_handlers_generic_handler("test.PageService", methods)
        server.add_generic_rpc_handlers((generic,))

    return register


@asynccontextmanager
async def served(
    behaviour: Behaviour,
    *,
    token: Secret | None = TOKEN,
    metrics: telemetry.Metrics | None = None,
) -> AsyncIterator[grpc.aio.Channel]:
    guard = CallGuard(mesh_token=TOKEN.reveal(), metrics=metrics)
    async with (
        serve_ephemeral(registrar(behaviour), interceptors=[guard]) as target,
        channel(target, mesh_token=token, room="test") as opened,
    ):
        yield opened


async def call(opened: grpc.aio.Channel, timeout: float | None = 5, **more: Any) -> PageRequest:  # noqa: ASYNC109 - the deadline is what is tested
    method = opened.unary_unary(
        "/test.PageService/Call",
        request_serializer=PageRequest.SerializeToString,
        response_deserializer=PageRequest.FromString,
    )
    try:
        answer: PageRequest = await method(PageRequest(page_size=3), timeout=timeout, **more)
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from None
    return answer


async def echo(request: PageRequest, _context: Any) -> PageRequest:
    return PageRequest(page_size=request.page_size, page_token=request_id())


async def test_a_call_brings_its_token_and_its_request_id() -> None:
    set_request_id("req_abc")
    async with served(echo) as opened:
        answer = await call(opened)
    assert (answer.page_size, answer.page_token) == (3, "req_abc")


async def test_a_watch_stream_brings_them_too() -> None:
    set_request_id("req_abc")
    async with served(echo) as opened:
        watch = opened.unary_stream(
            "/test.PageService/Watch",
            request_serializer=PageRequest.SerializeToString,
            response_deserializer=PageRequest.FromString,
        )
        seen = [event.page_token async for event in watch(PageRequest())]
    assert seen == ["req_abc", "req_abc"]


@pytest.mark.parametrize("token", [None, Secret("u" * 40)])
async def test_a_call_without_the_mesh_token_is_refused(token: Secret | None) -> None:
    async with served(echo, token=token) as opened:
        with pytest.raises(UnauthenticatedError):
            await call(opened)


async def test_a_call_without_a_timeout_does_not_leave() -> None:
    async with served(echo) as opened:
        with pytest.raises(ValueError, match=r"/test\.PageService/Call has no timeout"):
            await call(opened, timeout=None)


@pytest.mark.parametrize("seconds", [None, 3600])
async def test_a_server_refuses_a_call_without_a_bounded_deadline(seconds: float | None) -> None:
    guard = CallGuard(mesh_token=None)
    async with (
        serve_ephemeral(registrar(echo), interceptors=[guard]) as target,
        grpc.aio.insecure_channel(target) as opened,
    ):
        with pytest.raises(DeadlineError):
            await call(opened, timeout=seconds)


@pytest.mark.parametrize("kind", errors.TABLE)
async def test_each_error_of_the_table_crosses_the_wire(kind: type[MeshError]) -> None:
    async def refuse(_request: PageRequest, _context: Any) -> PageRequest:
        raise kind("went wrong", metadata={"darkbloom-detail": "7"})

    async with served(refuse) as opened:
        with pytest.raises(MeshError) as caught:
            await call(opened)
    assert type(caught.value) is kind
    assert caught.value.message == "went wrong"
    assert caught.value.metadata == {"darkbloom-detail": "7"}


async def test_an_unmapped_error_is_internal_and_its_text_stays_inside() -> None:
    stream = io.StringIO()
    logs.configure(room="test", version="1", level="info", stream=stream)
    set_request_id("req_abc")

    async def fail(_request: PageRequest, _context: Any) -> PageRequest:
        raise KeyError(CANARY)

    async with served(fail) as opened:
        with pytest.raises(InternalError) as caught:
            await call(opened)
    assert caught.value.message == "internal error"
    assert caught.value.metadata["darkbloom-request-id"] == "req_abc"
    event = json.loads(stream.getvalue().splitlines()[0])
    assert event["msg"] == "rpc_failed"
    assert event["error_type"] == "KeyError"
    assert CANARY not in stream.getvalue()


async def test_a_handler_that_is_cancelled_inside_still_answers() -> None:
    async def give_up(_request: PageRequest, _context: Any) -> PageRequest:
        raise asyncio.CancelledError

    async with served(give_up) as opened:
        with pytest.raises(errors.UnavailableError):
            await call(opened)


async def test_a_caller_that_leaves_stops_its_handler() -> None:
    began, stopped = asyncio.Event(), asyncio.Event()

    async def slow(_request: PageRequest, _context: Any) -> PageRequest:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return PageRequest()

    async with served(slow) as opened, asyncio.timeout(30):
        leaving = asyncio.ensure_future(call(opened))
        await began.wait()
        leaving.cancel()
        await asyncio.wait({leaving})
        await stopped.wait()


async def test_served_calls_are_counted_by_status() -> None:
    metrics = telemetry.Metrics(version="1")

    async def refuse(_request: PageRequest, _context: Any) -> PageRequest:
        raise errors.NotFoundError("no such page")

    async with served(echo, metrics=metrics) as opened:
        await call(opened)
    async with served(refuse, metrics=metrics) as opened:
        with pytest.raises(errors.NotFoundError):
            await call(opened)

    def served_with(status: str) -> float | None:
        labels = {"method": "test.PageService/Call", "status": status}
        return metrics.registry.get_sample_value("darkbloom_rpc_served_total", labels)

    assert served_with("ok") == 1
    assert served_with("not_found") == 1


async def test_a_caller_whose_deadline_passes_is_counted_as_cancelled_and_not_as_unavailable() -> (
    None
):
    metrics = telemetry.Metrics(version="1")
    stopped = asyncio.Event()

    async def slow(_request: PageRequest, _context: Any) -> PageRequest:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return PageRequest()

    async with served(slow, metrics=metrics) as opened, asyncio.timeout(30):
        with pytest.raises(DeadlineError):
            await call(opened, timeout=0.5)
        await stopped.wait()
    assert counts(metrics, "Call") == {"cancelled": 1}
    assert sample(metrics, "darkbloom_rpc_in_flight", "Call") == 0


async def test_a_stream_is_counted_and_never_timed_however_long_it_lasts() -> None:
    metrics = telemetry.Metrics(version="1")
    asked, answer = asyncio.Event(), asyncio.Event()

    async def wait(request: PageRequest, _context: Any) -> PageRequest:
        asked.set()
        await answer.wait()
        return request

    async with served(wait, metrics=metrics) as opened, asyncio.timeout(30):
        watch = opened.unary_stream(
            "/test.PageService/Watch",
            request_serializer=PageRequest.SerializeToString,
            response_deserializer=PageRequest.FromString,
        )(PageRequest())
        await asked.wait()
        assert sample(metrics, "darkbloom_rpc_in_flight", "Watch") == 1
        answer.set()
        assert len([event async for event in watch]) == 2
        await call(opened)
    assert sample(metrics, "darkbloom_rpc_in_flight", "Watch") == 0
    assert counts(metrics, "Watch") == {"ok": 1}
    assert sample(metrics, "darkbloom_rpc_served_seconds_count", "Watch") is None
    assert sample(metrics, "darkbloom_rpc_served_seconds_count", "Call") == 1


async def test_a_watcher_that_leaves_is_counted_as_cancelled() -> None:
    metrics = telemetry.Metrics(version="1")
    asked, stopped = asyncio.Event(), asyncio.Event()

    async def wait(request: PageRequest, _context: Any) -> PageRequest:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return request

    async with served(wait, metrics=metrics) as opened, asyncio.timeout(30):
        watch = opened.unary_stream(
            "/test.PageService/Watch",
            request_serializer=PageRequest.SerializeToString,
            response_deserializer=PageRequest.FromString,
        )(PageRequest())
        await asked.wait()
        watch.cancel()
        await stopped.wait()
    assert counts(metrics, "Watch") == {"cancelled": 1}


def sample(metrics: telemetry.Metrics, name: str, method: str) -> float | None:
    return metrics.registry.get_sample_value(name, {"method": f"test.PageService/{method}"})


def counts(metrics: telemetry.Metrics, method: str) -> dict[str, float]:
    return {
        found.labels["status"]: found.value
        for family in metrics.registry.collect()
        for found in family.samples
        if found.name == "darkbloom_rpc_served_total"
        and found.labels["method"] == f"test.PageService/{method}"
    }


async def test_a_traceparent_is_passed_on_and_a_broken_one_is_not() -> None:
    good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    async def outgoing(_request: PageRequest, _context: Any) -> PageRequest:
        return PageRequest(page_token=dict(call_metadata(None)).get("traceparent", ""))

    async with served(outgoing) as opened:
        kept = await call(opened, metadata=(("traceparent", good),))
        dropped = await call(opened, metadata=(("traceparent", "00-zz-01"),))
    assert kept.page_token == good
    assert dropped.page_token == ""


def test_reasons_travel_by_name() -> None:
    pairs = dict(DeadlineError("late").trailing_metadata())
    assert pairs["darkbloom-reason"] == "DEADLINE"
    assert errors.reason_value("DEADLINE") == ErrorReason.ERROR_REASON_DEADLINE
