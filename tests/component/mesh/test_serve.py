"""A service from start to drain, as a process sees it."""

import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc
import pytest
from darkbloom.common.v1.page_pb2 import PageRequest
from darkbloom_mesh.config import CommonConfig, RoomConfig, Secret
from darkbloom_mesh.errors import DrainingError, from_rpc_error
from darkbloom_mesh.serve import Service, run
from darkbloom_mesh.testing import free_port, no_leaked_tasks
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def service(tmp_path: Path, **config: Any) -> Service:
    made = CommonConfig(ready_file=tmp_path / "ready.json", log_level="error", **config)
    return Service(made, room="test", version="0.1.0", signals=False)


class PageServer:
    """One method that answers when it is let go."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.let_go = asyncio.Event()

    async def call(self, request: PageRequest, _context: Any) -> PageRequest:
        """Answer once `let_go` is set."""
        self.began.set()
        await self.let_go.wait()
        return request

    def register(self, server: grpc.aio.Server) -> None:
        """Add the method to a server."""
        method = grpc.unary_unary_rpc_method_handler(
            self.call, PageRequest.FromString, PageRequest.SerializeToString
        )
        generic = grpc.method_handlers_generic_handler("test.PageService", {"Call": method})
        server.add_generic_rpc_handlers((generic,))


def page_call(opened: grpc.aio.Channel) -> Callable[..., Awaitable[PageRequest]]:
    method: Callable[..., Awaitable[PageRequest]] = opened.unary_unary(
        "/test.PageService/Call",
        request_serializer=PageRequest.SerializeToString,
        response_deserializer=PageRequest.FromString,
    )
    return method


def ready(path: Path) -> Awaitable[dict[str, Any]]:
    """Wait for the ready file; a file gives no event, so a thread looks for it."""

    def look() -> dict[str, Any]:
        patience = threading.Event()
        for _ in range(1000):
            if path.exists():
                parsed: dict[str, Any] = json.loads(path.read_text())
                return parsed
            patience.wait(0.01)
        raise AssertionError("not ready")

    return asyncio.to_thread(look)


async def health_of(opened: grpc.aio.Channel, name: str) -> int:
    stub = health_pb2_grpc.HealthStub(opened)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=30)
    return int(answer.status)


async def test_a_drain_finishes_what_is_in_flight_refuses_new_calls_and_returns_0(
    tmp_path: Path,
) -> None:
    pages, steps = PageServer(), []

    drained = asyncio.Event()

    async def step(name: str) -> None:
        steps.append(name)
        drained.set()

    async with no_leaked_tasks(), service(tmp_path) as made, asyncio.TaskGroup() as tasks:
        made.on_drain(lambda: step("drained"))
        made.on_close(lambda: step("store closed"))
        made.on_close(lambda: step("client closed"))
        made.add_listener("grpc", "127.0.0.1:0", registrars=[pages.register], mesh_token=None)
        code = tasks.create_task(made.wait())
        listeners = (await ready(tmp_path / "ready.json"))["listeners"]
        async with grpc.aio.insecure_channel(listeners["grpc"]) as opened:
            in_flight = asyncio.ensure_future(
                page_call(opened)(PageRequest(page_size=9), timeout=9)
            )
            await pages.began.wait()
            assert await health_of(opened, "readiness") == SERVING
            made.stop()
            await drained.wait()
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await page_call(opened)(PageRequest(), timeout=2)
            assert type(from_rpc_error(refused.value)) is DrainingError
            pages.let_go.set()
            assert (await in_flight).page_size == 9
        assert await code == 0
    assert steps == ["drained", "client closed", "store closed"]
    assert not list(tmp_path.iterdir())  # noqa: ASYNC240 - nothing else runs


async def test_health_turns_before_the_drain_hooks_end(tmp_path: Path) -> None:
    hook_ran, proceed = asyncio.Event(), asyncio.Event()

    async def hook() -> None:
        hook_ran.set()
        await proceed.wait()

    async with service(tmp_path) as made, asyncio.TaskGroup() as tasks:
        made.on_drain(hook)
        target = made.add_listener("grpc", "127.0.0.1:0", registrars=[], mesh_token=None)
        tasks.create_task(made.wait())
        await ready(tmp_path / "ready.json")
        made.stop()
        await hook_ran.wait()
        async with grpc.aio.insecure_channel(target) as opened:
            assert await health_of(opened, "readiness") == NOT_SERVING
            assert await health_of(opened, "liveness") == NOT_SERVING
        proceed.set()


async def test_a_hook_that_hangs_is_cut_at_the_grace(tmp_path: Path) -> None:
    async with service(tmp_path, drain_grace_s=0.05) as made:
        made.on_drain(asyncio.Event().wait)
        made.stop()
        async with asyncio.timeout(30):
            assert await made.wait() == 0


async def test_a_failed_background_task_ends_the_room_with_1(tmp_path: Path) -> None:
    async def fail() -> None:
        raise RuntimeError("x")

    closed = asyncio.Event()

    async def close() -> None:
        closed.set()

    async with service(tmp_path) as made:
        made.on_close(close)
        made.spawn(fail(), name="sweeper")
        async with asyncio.timeout(30):
            assert await made.wait() == 1
    assert closed.is_set()


async def test_background_tasks_are_cancelled_at_the_end(tmp_path: Path) -> None:
    async with no_leaked_tasks(), service(tmp_path) as made:
        task = made.spawn(asyncio.Event().wait(), name="for ever")
        made.stop()
        assert await made.wait() == 0
    assert task.cancelled()


async def test_readiness_follows_its_checks(tmp_path: Path) -> None:
    async with service(tmp_path) as made, asyncio.TaskGroup() as tasks:
        made.ready_if(lambda: False)
        target = made.add_listener("grpc", "127.0.0.1:0", registrars=[], mesh_token=None)
        tasks.create_task(made.wait())
        await ready(tmp_path / "ready.json")
        async with grpc.aio.insecure_channel(target) as opened:
            assert await health_of(opened, "readiness") == NOT_SERVING
            assert await health_of(opened, "") == NOT_SERVING
            assert await health_of(opened, "liveness") == SERVING
        made.stop()


async def test_health_needs_no_token_and_reflection_does(tmp_path: Path) -> None:
    pages, token = PageServer(), Secret("t" * 40)
    async with service(tmp_path) as made, asyncio.TaskGroup() as tasks:
        target = made.add_listener(
            "grpc",
            "127.0.0.1:0",
            registrars=[pages.register],
            mesh_token=token,
            reflection=["test.PageService"],
        )
        tasks.create_task(made.wait())
        await ready(tmp_path / "ready.json")
        async with grpc.aio.insecure_channel(target) as opened:
            assert await health_of(opened, "liveness") == SERVING
            stub = reflection_pb2_grpc.ServerReflectionStub(opened)
            listing = reflection_pb2.ServerReflectionRequest(list_services="")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.ServerReflectionInfo(iter([listing])).read()
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
            metadata = (("darkbloom-mesh-token", token.reveal()),)
            call = stub.ServerReflectionInfo(iter([listing]), metadata=metadata)
            names = {found.name for found in (await call.read()).list_services_response.service}
            call.cancel()
        made.stop()
    assert names >= {"test.PageService", "grpc.health.v1.Health"}


async def test_metrics_are_served_on_their_own_port(tmp_path: Path) -> None:
    async with service(tmp_path) as made:
        url = f"http://{made.listeners['metrics']}/metrics"
        text = await asyncio.to_thread(lambda: urlopen(url, timeout=30).read().decode())
    assert 'darkbloom_build_info{commit="unknown",version="0.1.0"} 1.0' in text


async def test_a_taken_port_stops_the_start(tmp_path: Path) -> None:
    async with service(tmp_path) as made:
        address = f"127.0.0.1:{free_port()}"
        made.add_listener("grpc", address, registrars=[], mesh_token=None)
        with pytest.raises(RuntimeError):
            made.add_listener("again", address, registrars=[], mesh_token=None)


ROOM = """
import asyncio, sys
from pathlib import Path
from darkbloom_mesh.config import CommonConfig
from darkbloom_mesh.errors import DrainingError, from_rpc_error
from darkbloom_mesh.serve import Service, run

async def main():
    config = CommonConfig(ready_file=Path(sys.argv[1]))
    async with Service(config, room="thing", version="1") as service:
        if sys.argv[2] == "fail":
            raise ValueError("the patient said")
        service.add_listener("grpc", "127.0.0.1:0", registrars=[], mesh_token=None)
        return await service.wait()

raise SystemExit(run(main))
"""


async def test_a_process_drains_on_sigterm_and_logs_json_only(tmp_path: Path) -> None:
    path = tmp_path / "ready.json"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ROOM, str(path), "serve", stdout=-1, stderr=-1
    )
    announced = await ready(path)
    assert announced["pid"] == process.pid
    os.kill(process.pid, signal.SIGTERM)
    async with asyncio.timeout(20):
        out, err = await process.communicate()
    assert process.returncode == 0
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["msg"] for event in events] == ["serving", "draining", "stopped"]
    assert events[0]["listeners"] == announced["listeners"]
    assert b"Traceback" not in err


async def test_a_process_whose_start_fails_exits_with_1_and_tells_no_content(
    tmp_path: Path,
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ROOM, str(tmp_path / "ready.json"), "fail", stdout=-1, stderr=-1
    )
    async with asyncio.timeout(20):
        out, err = await process.communicate()
    assert process.returncode == 1
    assert json.loads(out.splitlines()[-1])["error_type"] == "ValueError"
    assert b"the patient said" not in out + err


def test_run_returns_the_code_of_its_main() -> None:
    async def main() -> int:
        return 3

    assert run(main) == 3


async def test_health_has_a_listener_of_its_own_that_serves_nothing_else(tmp_path: Path) -> None:
    config = RoomConfig(
        environment="development",
        ready_file=tmp_path / "ready.json",
        health_listen="127.0.0.1:0",
        log_level="error",
    )
    pages = PageServer()
    pages.let_go.set()
    made = Service(config, room="test", version="0.1.0", signals=False)
    async with no_leaked_tasks(), made, asyncio.TaskGroup() as tasks:
        made.add_listener("grpc", "127.0.0.1:0", registrars=[pages.register], mesh_token=None)
        code = tasks.create_task(made.wait())
        listeners = (await ready(tmp_path / "ready.json"))["listeners"]
        async with grpc.aio.insecure_channel(listeners["health"]) as opened:
            assert await health_of(opened, "liveness") == SERVING
            assert await health_of(opened, "readiness") == SERVING
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await page_call(opened)(PageRequest(), timeout=9)
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
        made.stop()
        assert await code == 0


async def test_an_old_connection_is_left_for_a_new_one_while_its_stream_goes_on(
    tmp_path: Path,
) -> None:
    peers: set[str] = set()

    async def call(request: PageRequest, context: Any) -> PageRequest:
        peers.add(context.peer())
        return request

    async def watch(_request: PageRequest, context: Any) -> None:
        number = 0
        while True:
            await context.write(PageRequest(page_size=number))
            number += 1
            await next_one.wait()
            next_one.clear()

    next_one = asyncio.Event()
    handlers = {
        "Call": grpc.unary_unary_rpc_method_handler(
            call, PageRequest.FromString, PageRequest.SerializeToString
        ),
        "Watch": grpc.unary_stream_rpc_method_handler(
            watch, PageRequest.FromString, PageRequest.SerializeToString
        ),
    }
    generic = grpc.method_handlers_generic_handler("test.PageService", handlers)
    async with no_leaked_tasks(), service(tmp_path) as made, asyncio.TaskGroup() as tasks:
        address = made.add_listener(
            "grpc",
            "127.0.0.1:0",
            registrars=[lambda server: server.add_generic_rpc_handlers((generic,))],
            mesh_token=None,
            connection_age_s=0.5,
        )
        code = tasks.create_task(made.wait())
        await ready(tmp_path / "ready.json")
        async with grpc.aio.insecure_channel(address) as opened:
            watching = opened.unary_stream(
                "/test.PageService/Watch",
                request_serializer=PageRequest.SerializeToString,
                response_deserializer=PageRequest.FromString,
            )(PageRequest())
            assert (await watching.read()).page_size == 0
            async with asyncio.timeout(60):
                while len(peers) < 3:
                    await page_call(opened)(PageRequest(page_size=7), timeout=30)
            next_one.set()
            assert (await watching.read()).page_size == 1
            watching.cancel()
        made.stop()
        assert await code == 0
