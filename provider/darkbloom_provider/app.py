"""The composition root: from configuration to a served stream (spec: provider section 2.1)."""

import asyncio
import secrets
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import replace
from functools import partial

import grpc
import structlog
from darkbloom_edge.boxes import KeyPair
from darkbloom_edge.envelope import new_key_pair
from darkbloom_mesh.serve import Service

from darkbloom_provider import code_release, hardware
from darkbloom_provider.cache_metrics import publish
from darkbloom_provider.config import ProviderConfig
from darkbloom_provider.device_key import DeviceKey, open_device_key
from darkbloom_provider.dialling import Dialler
from darkbloom_provider.engine.interface import Engine
from darkbloom_provider.errors import ProviderError
from darkbloom_provider.hardening import Hardening, harden
from darkbloom_provider.link import STOP_S
from darkbloom_provider.local.opening import open_local
from darkbloom_provider.lock import single_instance
from darkbloom_provider.mac.launcher import Launcher
from darkbloom_provider.opening import Lasting, Opener, backend_of
from darkbloom_provider.options import LocalEndpoint, Options
from darkbloom_provider.ready import write_ready
from darkbloom_provider.reporting import Reporter
from darkbloom_provider.service.awake import Awake, awake_here
from darkbloom_provider.service.control_server import ControlServer
from darkbloom_provider.service.leaving import MAX_TIMEOUT_S
from darkbloom_provider.shifts import Shifts
from darkbloom_provider.terminals import take_up
from darkbloom_provider.witness import here

LOCAL_STOP_S = 3.0
"""Bound of closing the local endpoint's connections."""
_SETTLE_S = 3.0
"""What a drain keeps for settling; the router usually answers at once."""

_log = structlog.get_logger()


async def serve(
    config: ProviderConfig, environ: MutableMapping[str, str], options: Options | None = None
) -> int:
    """Run the agent until a signal or a command; returns the exit code.

    Raises:
        ProviderError: it cannot start, with the remedy.
    """
    options = options or Options()
    home = config.folders
    home.create()
    with single_instance(home.lock):
        hardening = harden(environ)
        release = await asyncio.to_thread(code_release.measure)
        # The ready file says more here than that the process runs; `ready` writes it.
        common = replace(config, ready_file=None)
        async with Service(common, room="provider", version=release.version) as service:
            return await _serve(config, service, hardening, release, options)


async def _serve(
    config: ProviderConfig,
    service: Service,
    hardening: Hardening,
    release: code_release.CodeRelease,
    options: Options,
) -> int:
    home, clock = config.folders, config.clock()
    signer = open_device_key(config)
    key_pair = new_key_pair()
    terminals = await take_up(home.terminals, signer.public, clock)
    service.spawn(terminals.run(), name="terminals")
    service.on_close(terminals.close)
    lasting = Lasting(
        key_pair=key_pair,
        signer=signer,
        hardening=hardening,
        release=release,
        witness=here(await _greet(config, service, key_pair, signer)),
        hardware=hardware.detect(),
        generation=secrets.token_hex(16),
        terminals=terminals,
    )
    dialler = _dialler(config) if options.network else None
    opener = Opener(config=config, service=service, lasting=lasting, dialler=dialler, clock=clock)
    shifts = Shifts(opener.open, schedule=options.schedule, clock=clock)
    reporter = Reporter(shifts, lasting, clock, engine=backend_of(config), network=options.network)
    awake = awake_here()
    shifts.changed = partial(_follow, shifts, reporter, awake)
    service.on_close(partial(asyncio.to_thread, awake.release))
    service.spawn(reporter.keep(home.state), name="state")
    service.on_close(lambda: reporter.finish(home.state))
    control = ControlServer(
        home.control,
        facts=reporter.facts,
        drain=lambda force: _leave(service, shifts, force=force),
    )
    service.spawn(control.run(), name="control")

    if options.local is not None:
        _serve_locally(options.local, config, service, shifts, reporter, opener)
    await shifts.begin()
    service.spawn(shifts.run(), name="shifts")
    service.spawn(publish(lambda: _engine(shifts), service.metrics, clock), name="cache_metrics")
    service.on_drain(lambda: shifts.drain(_patience_s(config.drain_grace_s)))
    if config.ready_file is not None and not options.network:
        await asyncio.to_thread(write_ready, config.ready_file, {"listeners": service.listeners})
    return await service.wait()


def _serve_locally(
    endpoint: LocalEndpoint,
    config: ProviderConfig,
    service: Service,
    shifts: Shifts,
    reporter: Reporter,
    opener: Opener,
) -> None:
    server = open_local(
        endpoint,
        config.folders,
        shifts,
        config.clock(),
        version=opener.lasting.release.version,
        alone=not opener.dials,
    )
    if server is None:
        return
    # Known before the first registration says what this process listens on.
    opener.own_ports.add(server.port)
    reporter.local_url = server.base_url
    service.announce("local", f"{endpoint.host}:{server.port}")
    running = service.spawn(server.run(), name="local")

    async def close() -> None:
        server.stop()
        await asyncio.wait([running], timeout=LOCAL_STOP_S)

    # Cancelled before its time, uvicorn would leave connections open.
    service.on_drain(lambda: _after(shifts, close))


async def _after(shifts: Shifts, close: Callable[[], Awaitable[None]]) -> None:
    """Close the endpoint once the requests that it had let in are answered."""
    await shifts.over.wait()
    await close()


def _engine(shifts: Shifts) -> Engine | None:
    return None if shifts.current is None else shifts.current.kitchen.engine


def _follow(shifts: Shifts, reporter: Reporter, awake: Awake) -> None:
    """Tell of a new phase; the machine may sleep while its schedule is closed."""
    if shifts.current is None:
        awake.release()
        reporter.sleep_prevented = False
    else:
        reporter.sleep_prevented = awake.hold()
    reporter.changed.set()


def _leave(service: Service, shifts: Shifts, *, force: bool) -> None:
    """Drain for as long as it takes and then stop; a second word can only shorten it."""

    async def leave() -> None:
        await shifts.drain(0.0 if force else MAX_TIMEOUT_S)
        service.stop()

    service.spawn(leave(), name="leave")


async def _greet(
    config: ProviderConfig, service: Service, key_pair: KeyPair, signer: DeviceKey
) -> Launcher | None:
    """Greet the launcher that has started us; None where nobody has."""
    inherited = inherited_socket(config)
    if inherited is None:
        return None
    launcher = await Launcher.connect(inherited)
    service.spawn(launcher.run(), name="launcher")
    hello = await launcher.greet(key_pair.public, signer)
    _log.info("launcher_greeted", app_attest=hello.app_attest, push=hello.push)

    return launcher


def inherited_socket(config: ProviderConfig) -> socket.socket | None:
    """Return the socket that a launcher left open for us.

    Raises:
        ProviderError: what was inherited is no socket.
    """
    if config.launcher_fd is None:
        return None
    try:
        return socket.socket(fileno=config.launcher_fd)
    except OSError as error:
        raise ProviderError(
            f"descriptor {config.launcher_fd} is no socket ({error.strerror})",
            "DARKBLOOM_PROVIDER_LAUNCHER_FD is for the launcher alone; unset it",
        ) from error


def _dialler(config: ProviderConfig) -> Dialler:
    credentials = None
    if config.coordinator_tls:
        roots = _roots(config)
        credentials = partial(grpc.ssl_channel_credentials, roots)
    first = secrets.randbelow(len(config.coordinators))
    return Dialler(config.coordinators, first=first, credentials=credentials)


def _roots(config: ProviderConfig) -> bytes | None:
    path = config.coordinator_ca_file
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise ProviderError(
            f"{path} cannot be read ({error.strerror})",
            "set DARKBLOOM_PROVIDER_COORDINATOR_CA_FILE to a PEM file of root certificates",
        ) from error


def _patience_s(grace_s: float) -> float:
    """Return how long running work may go on, so that stopping it and settling fit the grace."""
    return max(grace_s / 2, grace_s - STOP_S - _SETTLE_S)
