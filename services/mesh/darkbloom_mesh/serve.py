"""How a room runs: one `Service` from start to drain.

    async def serve(config: BillingConfig) -> int:
        async with Service(config, room="billing", version="1.2.3") as service:
            store = await Store.open(config.database_url)
            service.on_close(store.close)
            service.add_listener(
                "grpc", config.listen,
                registrars=[partial(add_LedgerServiceServicer_to_server, LedgerServer(store))],
                reflection=[LEDGER_DESCRIPTOR.full_name], mesh_token=config.mesh_token(),
            )
            service.spawn(sweeper.run(), name="sweeper")
            return await service.wait()

    def main() -> None:                                     # __main__.py
        raise SystemExit(run(lambda: serve(main_config(BillingConfig, "billing"))))

Resources: every task has the service as its parent; what `on_close` was given is closed in reverse
order, whatever happened. Errors: a background task that fails ends the room with code 1; so does an
exception of the body. SIGTERM or SIGINT: `stopping` is set, health says NOT_SERVING, new calls
are answered DRAINING, `on_drain` hooks run, in-flight calls finish, all within `drain_grace_s`;
then tasks are cancelled and stores closed, code 0. A handler that streams for ever (a watch, a
lane) ends itself on `stopping`.
"""

import asyncio
import gc
import json
import os
import resource
import signal
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Self

import grpc
import structlog
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection as grpc_reflection

from darkbloom_mesh import closed, logs
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.config import CommonConfig, ConfigError, RoomConfig, Secret
from darkbloom_mesh.errors import MeshError
from darkbloom_mesh.interceptors import CallGuard, Context
from darkbloom_mesh.options import MAX_UNARY_BYTES, server_options
from darkbloom_mesh.telemetry import LOOP_LAG, TLS_EXPIRY, TLS_RELOADS, Metrics
from darkbloom_mesh.tracing import Tracing

__all__ = ["Context", "Service", "run"]

Registrar = Callable[[grpc.aio.Server], object]
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_READINESS_PERIOD_S = 2.0
_LAG_PERIOD_S = 1.0
_CLOSE_BOUND_S = 10.0
_GC_THRESHOLD = 50_000
_log = structlog.get_logger()


def run(main: Callable[[], Awaitable[int]]) -> int:
    """Run a room to its exit code on a fresh event loop; an exception is logged and means 1.

    From here on the process leaves no core file, which would hold keys and plaintext.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    _settle_collector()

    async def guarded() -> int:
        asyncio.get_running_loop().set_exception_handler(_log_stray)
        try:
            return await main()
        except MeshError as error:
            # Its text was written by a developer, for whoever reads this line.
            _log.error("room_failed", exc_info=error, why=error.message)
            return 1
        except Exception as error:  # noqa: BLE001 - the last frame before the exit code
            _log.error("room_failed", exc_info=error)
            return 1

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(guarded())


class Service:
    """Everything that a room's process shares: listeners, health, metrics, tasks, signals, drain.

    Args:
        config: The room's configuration; drain grace, metrics address, ready file, log level.
        room: Name in logs.
        version: Version of the build.
        clock: Time of the periodic checks.
        signals: Whether SIGTERM and SIGINT are taken; tests say no and call `stop()`.
    """

    def __init__(
        self,
        config: CommonConfig,
        *,
        room: str,
        version: str,
        clock: Clock | None = None,
        signals: bool = True,
    ) -> None:
        self.room = room
        self.metrics = Metrics(version=version, commit=config.build_commit)
        self.stopping = asyncio.Event()
        self.listeners: dict[str, str] = {}
        self.tls = config.tls() if isinstance(config, RoomConfig) else None
        """Our certificate, for channels; None where the mesh has none."""
        self._config = config
        self._version = version
        self._clock = clock or config.clock()
        self._signals = signals
        self._code = 0
        self._health = health.HealthServicer()
        self._servers: list[grpc.aio.Server] = []
        self._guards: list[CallGuard] = []
        self._checks: list[Callable[[], bool]] = []
        self._drains: list[Callable[[], Awaitable[object]]] = []
        self._closes: list[Callable[[], Awaitable[object]]] = []
        self._tasks = asyncio.TaskGroup()
        self._spawned: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Start logs, traces, metrics and signals; nothing is served before `wait()`."""
        config = self._config
        logs.configure(
            room=self.room,
            version=self._version,
            level=config.log_level,
            build_commit=config.build_commit,
            environment=config.environment,
        )
        tracing = Tracing(
            self.room,
            self._version,
            config.otlp_endpoint,
            share=config.trace_share,
            metrics=self.metrics,
        )
        self.on_close(lambda: asyncio.to_thread(tracing.close))
        self._serve_metrics()
        if isinstance(config, RoomConfig) and config.health_listen:
            # Kubelets cannot speak TLS, so health has a listener of its own that never does.
            self.add_listener(
                "health", config.health_listen, registrars=[], mesh_token=None, public=True
            )
        if self._signals:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self.stop)
        await self._tasks.__aenter__()
        self.spawn(self._watch_lag(), name="lag")
        self._check_certificate()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop servers, cancel tasks, close what was opened; never hides the body's exception."""
        self.stopping.set()
        for server in self._servers:
            await server.stop(None)
        for task in self._spawned:
            task.cancel()
        await self._tasks.__aexit__(None, None, None)
        for close in reversed(self._closes):
            await self._bounded("close", close, _CLOSE_BOUND_S)

    def add_listener(
        self,
        name: str,
        address: str,
        *,
        registrars: Sequence[Registrar],
        mesh_token: Secret | None,
        reflection: Sequence[str] = (),
        max_message_bytes: int = MAX_UNARY_BYTES,
        connection_age_s: float = 0.0,
        public: bool = False,
    ) -> str:
        """Bind a gRPC listener, health included; it serves once `wait()` runs.

        Args:
            name: Key in the ready file.
            address: host:port; port 0 picks one.
            registrars: Each adds one servicer to the server it is given.
            mesh_token: What callers must bring; None on a public listener.
            reflection: Full names of the services to reflect; none on a public listener.
            max_message_bytes: Bound of what is accepted.
            connection_age_s: See `server_options`.
            public: For strangers: no certificate is asked for, none is shown.

        Returns:
            The bound address.

        Raises:
            RuntimeError: The address cannot be bound.
        """
        token = mesh_token.reveal() if mesh_token else None
        tls = None if public else self.tls
        guard = CallGuard(mesh_token=token, metrics=self.metrics, tls=tls)
        server = grpc.aio.server(
            interceptors=[guard],
            options=server_options(
                max_message_bytes=max_message_bytes, connection_age_s=connection_age_s
            ),
        )
        for register in registrars:
            register(server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if reflection:
            names = (*reflection, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
            grpc_reflection.enable_server_reflection(names, server)
        if tls is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, tls.for_server())
        self._servers.append(server)
        self._guards.append(guard)
        return self.announce(name, f"{address.rpartition(':')[0]}:{port}")

    def _check_certificate(self) -> None:
        """Refuse a certificate of another room.

        Raises:
            ConfigError: It is.
        """
        if self.tls is not None and (named := self.tls.current().room) != self.room:
            raise ConfigError([f"DARKBLOOM_TLS_CERT_FILE: the certificate names {named!r}"])

    def announce(self, name: str, address: str) -> str:
        """Name a bound address in the ready file, also of a listener that is not gRPC."""
        self.listeners[name] = address
        return address

    def spawn(self, work: Coroutine[Any, Any, object], *, name: str) -> asyncio.Task[None]:
        """Run a background task until the room stops; its failure ends the room with code 1."""
        task = self._tasks.create_task(self._watched(work, name), name=name)
        self._spawned.append(task)
        task.add_done_callback(self._spawned.remove)
        # Cancelled before its first step, the work would never have been awaited.
        task.add_done_callback(lambda _: work.close())
        return task

    def ready_if(self, check: Callable[[], bool]) -> None:
        """Serve `readiness` only while `check` says so; asked every 2 s, must not block."""
        self._checks.append(check)

    def on_drain(self, hook: Callable[[], Awaitable[object]]) -> None:
        """Run `hook` when the room begins to stop, beside the other hooks, within the grace."""
        self._drains.append(hook)

    def on_close(self, hook: Callable[[], Awaitable[object]]) -> None:
        """Run `hook` at the very end, in reverse order of these calls."""
        self._closes.append(hook)

    def stop(self) -> None:
        """Begin to drain, as SIGTERM does."""
        self.stopping.set()

    async def wait(self) -> int:
        """Serve until told to stop, drain, and return the exit code."""
        for server in self._servers:
            await server.start()
        await self._set_health()
        self.spawn(self._watch_readiness(), name="readiness")
        self._write_ready_file()
        _log.info("serving", pid=os.getpid(), listeners=self.listeners)

        await self.stopping.wait()

        await self._drain(self._config.drain_grace_s)
        _log.info("stopped", code=self._code)
        return self._code

    async def _drain(self, grace_s: float) -> None:
        _log.info("draining", grace_s=grace_s)
        deadline_s = self._clock.monotonic() + grace_s
        await self._health.enter_graceful_shutdown()
        for guard in self._guards:
            guard.refuse_new()
        async with asyncio.TaskGroup() as steps:
            for hook in self._drains:
                steps.create_task(self._bounded("drain", hook, grace_s))
        # A server that stops answers late calls with a bare CANCELLED, so it stops when idle.
        left_s = max(0.0, deadline_s - self._clock.monotonic())
        async with asyncio.TaskGroup() as steps:
            for guard in self._guards:
                steps.create_task(self._bounded("finish", guard.idle, left_s))
        left_s = max(0.0, deadline_s - self._clock.monotonic())
        async with asyncio.TaskGroup() as steps:
            for server in self._servers:
                steps.create_task(server.stop(left_s))

    async def _watched(self, work: Coroutine[Any, Any, object], name: str) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - logged, and it ends the room
            _log.error("task_failed", task=name, exc_info=error)
            self._code = 1
            self.stop()

    async def _bounded(
        self, step: str, hook: Callable[[], Awaitable[object]], seconds: float
    ) -> None:
        try:
            async with asyncio.timeout(seconds):
                await hook()
        except Exception as error:  # noqa: BLE001 - one hook must not keep the others from running
            _log.error("hook_failed", step=step, exc_info=error)

    def _serve_metrics(self) -> None:
        address = self._config.metrics_listen
        server, thread = closed.serve(self.metrics.registry, address)
        self.announce("metrics", f"{address.rpartition(':')[0]}:{server.server_port}")

        def close() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        self.on_close(lambda: asyncio.to_thread(close))

    def _write_ready_file(self) -> None:
        path = self._config.ready_file
        if path is None:
            return
        ready = json.dumps({"pid": os.getpid(), "listeners": self.listeners})
        staged = path.with_suffix(f".{os.getpid()}")
        staged.write_text(ready)
        staged.replace(path)
        self.on_close(lambda: asyncio.to_thread(path.unlink, missing_ok=True))

    async def _set_health(self) -> None:
        ready = _SERVING if all(check() for check in self._checks) else _NOT_SERVING
        await self._health.set("liveness", _SERVING)
        await self._health.set("readiness", ready)
        await self._health.set("", ready)

    async def _watch_readiness(self) -> None:
        while True:
            self._watch_certificate()
            await self._clock.sleep(_READINESS_PERIOD_S)
            await self._set_health()

    def _watch_certificate(self) -> None:
        if (tls := self.tls) is None:
            return
        expiry = tls.current().not_after.timestamp()
        self.metrics.gauge(TLS_EXPIRY).set(expiry)
        self.metrics.gauge(TLS_RELOADS).labels("taken").set(tls.reloads)
        self.metrics.gauge(TLS_RELOADS).labels("refused").set(tls.refused)

    async def _watch_lag(self) -> None:
        lag = self.metrics.histogram(LOOP_LAG)
        while True:
            due = self._clock.monotonic() + _LAG_PERIOD_S
            await self._clock.sleep(_LAG_PERIOD_S)
            lag.observe(max(0.0, self._clock.monotonic() - due))


def _settle_collector() -> None:
    """Let the collector of cycles run a hundredth as often, and never over what start-up made.

    The paths here make garbage by the thousand and cycles by the dozen; counting frees the rest.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, 20, 20)


def _log_stray(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what no task awaited, without the default handler's text of the exception."""
    _log.error("stray_failure", exc_info=context.get("exception"))
