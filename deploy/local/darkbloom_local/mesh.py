"""A whole mesh on this machine: `make run`, `make demo` and the tests all use this class.

async with Mesh(Path(".state"), engine="scripted") as mesh:
    client = openai.AsyncOpenAI(base_url=f"{mesh.url}/v1", api_key=mesh.api_key)
    mesh.kill("router")                     # kill -9
    await mesh.restart("router")            # same ports, same data
    await mesh.start_provider("provider-2")
"""

import asyncio
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import grpc
from darkbloom_edge.sealing_keys import new_file
from darkbloom_mesh.callers import ROOMS as ROOM_NAMES
from darkbloom_mesh.channel import channel
from darkbloom_mesh.clock import Clock, SystemClock
from darkbloom_mesh.config import Secret
from darkbloom_mesh.tls import TlsFiles

from darkbloom_local import health, seeds, stripe
from darkbloom_local.authority import LocalAuthority, operator_paths
from darkbloom_local.children import Children
from darkbloom_local.commands import json_object, output_of
from darkbloom_local.environment import inherited, refuse_production
from darkbloom_local.errors import LocalError
from darkbloom_local.issuer import DEVELOPER, DevelopmentIssuer
from darkbloom_local.launcher import ISSUER_NAME, Launcher
from darkbloom_local.ports import require_free
from darkbloom_local.provider import ProviderSetup
from darkbloom_local.state import StateDir
from darkbloom_local.stores import Postgres, Valkey
from darkbloom_local.wiring import (
    ATTESTATION,
    BILLING,
    REGISTRY,
    ROUTER,
    Wiring,
    choose_ports,
    rooms,
)

Engine = Literal["mlx", "scripted"]
Progress = Callable[[str], None]

_READY_S = 60.0
_WATCH_S = 0.2
_STOP_GRACE_S = 40.0
_PROVIDER = "provider"
# Whoever hands out work stops before whoever does it; money and truth stop last.
_STOP_ORDER = (
    "gateway",
    _PROVIDER,
    "router",
    "billing registry attestation issuer stripe",
    "valkey postgres",
)


def _silent(_text: str) -> None:
    """Show nothing."""


class Mesh:
    """Stores, rooms, seeds and providers as one async context; leaving it drains everything.

    Args:
        state: Directory of the mesh; a second run finds its data there.
        engine: What the first provider runs; None starts no provider.
        http_port: Port of the gateway; None picks one.
        environment: Variables on top of ours, by process name (`router`, `provider-2` …).
        programs: Command lines that replace ours, by process name; for hostile stand-ins.
        routers: Replicas of the router: `router`, `router-2` and so on.
        replicas: Replicas of every other room: `gateway-2`, `billing-2` and so on.
        local_stripe: Run a Stripe without money beside the rooms, for trying payments.
        mtls: Rooms know each other by certificates of a throw-away authority, not by a token.
        records: Let routers keep decision records in the database (`docs/routing.md`).
        durable: False is for tests: commits do not wait for the disk, and a new database begins as
            a copy of the migrated one of an earlier mesh of this process.
        cache: Where downloads are kept; None keeps them in the state directory.
        progress: Gets one line for each step.
        clock: Time of the watch over the children.
    """

    def __init__(
        self,
        state: Path,
        *,
        engine: Engine | None = "scripted",
        http_port: int | None = None,
        environment: Mapping[str, Mapping[str, str]] | None = None,
        programs: Mapping[str, Sequence[str]] | None = None,
        routers: int = 1,
        replicas: int = 1,
        local_stripe: bool = False,
        records: bool = False,
        mtls: bool = False,
        durable: bool = True,
        cache: Path | None = None,
        progress: Progress = _silent,
        clock: Clock | None = None,
    ) -> None:
        self.state = StateDir(state)
        self.engine = engine
        self._http_port = http_port
        self._cache = cache or self.state.root / "cache"
        self._progress = progress
        self._clock = clock or SystemClock()
        logs = self.state.root / "logs"
        self._wiring = Wiring(
            state=self.state,
            ports=choose_ports(http_port, routers, replicas),
            routers=routers,
            replicas=replicas,
            mesh_token_file=self.state.root / "keys" / "mesh-token",
            database_url=Postgres(self.state.root / "postgres").url,
            redis_url=Valkey(self.state.root / "valkey").url,
            local_stripe=local_stripe,
            records=records,
            tls=self.state.root / "keys" / "tls" if mtls else None,
        )
        self._authority: LocalAuthority | None = None
        self._tls: TlsFiles | None = None
        self._children = Children(self.state.root / "children.json")
        self._launcher = Launcher(
            wiring=self._wiring,
            children=self._children,
            postgres=Postgres(self.state.root / "postgres", logs / "postgres.log", durable=durable),
            valkey=Valkey(self.state.root / "valkey", logs / "valkey.log"),
            schemas=(ATTESTATION, REGISTRY, BILLING, *([ROUTER] if records else [])),
            environment=dict(environment or {}),
            programs=dict(programs or {}),
        )
        self._rooms = rooms(routers, replicas)
        self._stack = ExitStack()
        self._identities: dict[str, bytes] = {}
        self._channels: dict[str, grpc.aio.Channel] = {}

    # -- what callers ask for -------------------------------------------------------------

    @property
    def url(self) -> str:
        """Base URL of the gateway, without `/v1`."""
        return f"http://{self.wiring.address('gateway.http')}"

    @property
    def stripe_url(self) -> str | None:
        """Base URL of the local Stripe; None where there is none."""
        return f"http://{self.wiring.address('stripe.http')}" if self.wiring.local_stripe else None

    @property
    def api_key(self) -> str:
        """API key of the development account."""
        return self._secret("api-key", _new_api_key)

    @property
    def admin_key(self) -> str:
        """Key of the operator."""
        return self._secret("admin-key", _new_token)

    def _new_sealing_keys(self) -> str:
        return new_file(secrets.token_bytes, self._clock.now()).decode()

    def login_token(self, email: str = DEVELOPER) -> str:
        """Return a login of the development issuer, good for an hour."""
        return DevelopmentIssuer(self.wiring.issuer_key).token(email)

    @property
    def mesh_token(self) -> Secret:
        """Token of internal calls."""
        return Secret(self._secret("mesh-token", _new_token))

    @property
    def database_url(self) -> str:
        """PostgreSQL of the mesh."""
        return self.wiring.database_url

    @property
    def redis_url(self) -> str:
        """Valkey of the mesh."""
        return self.wiring.redis_url

    @property
    def wiring(self) -> Wiring:
        """Addresses of all listeners."""
        return self._wiring

    @property
    def pids(self) -> Mapping[str, int]:
        """Process ids by name."""
        return self._children.pids

    def ready(self, name: str) -> Mapping[str, Any]:
        """Return what a process said when it became ready: listeners, provider id …."""
        return self._launcher.said[name]

    def log(self, name: str) -> Path:
        """Return the log of a process."""
        return self.state.log(name)

    def channel(self, listener: str) -> grpc.aio.Channel:
        """Return an operator's channel to an internal listener, e.g. `billing.grpc`."""
        if listener not in self._channels:
            self._channels[listener] = channel(
                self.wiring.address(listener),
                mesh_token=None if self._tls else self.mesh_token,
                room="local",
                tls=self._tls,
                peer=listener.partition(".")[0].partition("-")[0],
            )
        return self._channels[listener]

    @property
    def authority(self) -> LocalAuthority:
        """Who signs the rooms' certificates.

        Raises:
            LocalError: The mesh has no certificates.
        """
        if self._authority is None:
            raise LocalError("this mesh has no certificates")
        return self._authority

    def renew_certificates(self) -> None:
        """Give every room a new key and certificate, as `--mtls` meshes do when they start.

        Raises:
            LocalError: The mesh has no certificates.
        """
        self.authority.issue(ROOM_NAMES)

    # -- life -----------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Start everything, or nothing: a failure ends what had started and is raised."""
        refuse_production()
        try:
            self._stack.enter_context(self.state.locked())
            await self._start()
        except BaseException as error:
            await self._stop()
            # Steps run side by side; whoever asked for a mesh wants the reason, not the grouping.
            if isinstance(error, BaseExceptionGroup) and (reason := _reason(error)):
                raise reason from None
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drain and stop everything: gateway, providers, router, the others, stores."""
        await self._stop()

    async def watch(self) -> None:
        """Run until a process ends by itself.

        Raises:
            ChildDiedError: Which one, and the end of its log.
        """
        while True:
            self._children.check()
            await self._clock.sleep(_WATCH_S)

    def kill(self, name: str) -> None:
        """Kill -9 one process and everything it started."""
        self._children.kill(name)

    def kill_all(self) -> None:
        """Kill -9 everything; for a person who cannot wait for the drain."""
        self._children.kill_all()

    async def stop(self, name: str, grace_s: float = _STOP_GRACE_S) -> int:
        """Drain and stop one process; return its exit code."""
        return await self._children.stop(name, grace_s)

    async def restart(self, name: str, environment: Mapping[str, str] | None = None) -> None:
        """Start a stopped or killed room, store or provider again: same ports, same data.

        Args:
            name: Which process.
            environment: Replaces what the constructor said for it.
        """
        if environment is not None:
            self._launcher.environment[name] = dict(environment)
        if name in self._children:
            await self.stop(name)
        if name == "postgres":
            await self._launcher.start_postgres()
        elif name == "valkey":
            await self._launcher.start_valkey()
        elif name == ISSUER_NAME:
            await self._launcher.start_issuer()
        elif name == stripe.NAME:
            await self._launcher.start_stripe()
        elif name.startswith(_PROVIDER):
            await self.start_provider(name)
        else:
            await self._launcher.start_room(next(room for room in self._rooms if room.name == name))

    async def start_provider(
        self,
        name: str = _PROVIDER,
        *,
        engine: Engine | None = None,
        account_id: str = seeds.PROVIDER,
        routable: bool = True,
    ) -> None:
        """Start a provider with a home of its own, linked to an account.

        Args:
            name: Process name, beginning with `provider`; also the name of its home.
            engine: What it runs; None takes the mesh's.
            account_id: Whom it earns for, for ever; empty where its owner has logged it in.
            routable: Wait until it would get requests, not only until it runs.
        """
        setup = self._provider(name, engine)
        identity = await self._identify(name)
        if account_id:
            billing = self.channel("billing.grpc")
            await seeds.link_provider(billing, identity, name, account_id)
        await self._launcher.start_provider(setup)
        if routable:
            await self.routable(name)

    async def routable(self, name: str = _PROVIDER, timeout_s: float = _READY_S) -> None:
        """Return once the router would give this provider a request.

        Raises:
            NotReadyError: The time is over; the message names the gate that is shut.
        """
        router = self.channel("router.internal")
        await health.wait_for_provider(router, self._identities[name], self._clock, timeout_s)

    async def reachable(self, timeout_s: float = _READY_S) -> None:
        """Return once the gateway says that it can serve.

        Raises:
            NotReadyError: The time is over; the message carries what it said last.
        """
        port = self.wiring.ports["gateway.http"]
        await health.wait_for_gateway(port, self._clock, timeout_s)

    async def audit(self) -> Mapping[str, Any]:
        """Run billing's own audit over the ledger and return its report."""
        environment = inherited() | self._launcher.room_environment(BILLING)
        return json_object(
            await output_of(BILLING.argv("audit", "--json"), environment, accept=(0, 1))
        )

    # -- steps ----------------------------------------------------------------------------

    async def _start(self) -> None:
        self.state.require_space()
        if self._http_port is not None:
            require_free(self._http_port)
        if count := self._children.end_leftovers():
            self._progress(f"ended {count} processes that an earlier run left behind")

        self.state.secret("mesh-token", _new_token)
        self.state.secret("api-key", _new_api_key)
        self.state.secret("admin-key", _new_token)
        self.state.secret("sealing-keys", self._new_sealing_keys)
        for name in ("run", "logs"):
            self.state.directory(name)
        self._certify()

        async with asyncio.TaskGroup() as preparations:
            models = preparations.create_task(self._prepare_models())
            release = preparations.create_task(self._measure())

            self._progress("stores: PostgreSQL and Valkey")
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._launcher.begin_postgres())
                tasks.create_task(self._launcher.start_valkey())
                tasks.create_task(self._launcher.start_issuer())
                if self.wiring.local_stripe:
                    tasks.create_task(self._launcher.start_stripe())

            self._progress("rooms: attestation, registry, billing")
            await self._launcher.start_owners()

        self._progress("seeds: account, key, prices, catalog, code release")
        await self._seed(models.result(), release.result())

        self._progress("rooms: router, gateway")
        await self._start_the_rest()

        if self.engine is not None:
            self._progress(f"provider: {self.engine} engine")
            await self.start_provider()
        await self.reachable()
        self._announce()

    async def _start_the_rest(self) -> None:
        """Start routers, gateways and replicas of the others, whose keys the first ones made.

        Each finds its neighbours when they come; the provider's identity is made meanwhile.
        """
        async with asyncio.TaskGroup() as tasks:
            for room in self._rooms:
                if room.name not in self._children:
                    tasks.create_task(self._launcher.start_room(room))
            if self.engine is not None:
                tasks.create_task(self._identify(_PROVIDER))

    def _certify(self) -> None:
        if self.wiring.tls is None:
            return
        self._authority = LocalAuthority(self.state.directory("keys", "tls"), self._clock)
        self.renew_certificates()
        self._tls = TlsFiles(operator_paths(self.wiring.tls), self._clock)

    async def _prepare_models(self) -> Sequence[seeds.DevelopmentBuild]:
        setup = self._provider()
        environment = self._launcher.provider_environment(setup)
        return await setup.prepare_models(environment, self._progress)

    async def _measure(self) -> Mapping[str, Any]:
        setup = self._provider()
        return await setup.code_release(self._launcher.provider_environment(setup))

    async def _seed(
        self, builds: Sequence[seeds.DevelopmentBuild], release: Mapping[str, Any]
    ) -> None:
        billing = self.channel("billing.grpc")
        await seeds.accounts(billing, self.api_key)
        await seeds.developer(billing, self.login_token())
        await seeds.prices(billing, builds)
        await seeds.catalog(self.channel("registry.grpc"), builds)
        await seeds.code_release(self.channel("attestation.grpc"), release)

    async def _stop(self) -> None:
        for opened in self._channels.values():
            await opened.close(None)
        self._channels.clear()
        self.state.retract()

        for step in _STOP_ORDER:
            names = [name for name in self._children.names if name.startswith(tuple(step.split()))]
            await self._children.stop_all(names, _STOP_GRACE_S)
        self._stack.close()

    def _announce(self) -> None:
        self.state.announce(
            {
                "pid": os.getpid(),
                "url": self.url,
                "engine": self.engine,
                "api_key_file": str(self.state.root / "keys" / "api-key"),
                "tls": self.wiring.tls is not None,
                "listeners": dict(self.wiring.ports),
                "processes": dict(self.pids),
            }
        )

    async def _identify(self, name: str) -> bytes:
        """Return a provider's public identity key, made on first use."""
        if name not in self._identities:
            setup = self._provider(name)
            environment = self._launcher.provider_environment(setup)
            self._identities[name] = await setup.identity(environment)
        return self._identities[name]

    def _provider(self, name: str = _PROVIDER, engine: Engine | None = None) -> ProviderSetup:
        return ProviderSetup(
            name=name,
            engine=engine or self.engine or "scripted",
            wiring=self.wiring,
            cache=self._cache,
        )

    def _secret(self, name: str, make: Callable[[], str]) -> str:
        return self.state.secret(name, make).read_text().strip()


def _reason(group: BaseExceptionGroup[BaseException]) -> LocalError | None:
    """Return the first failure that was written for a person."""
    for error in group.exceptions:
        if isinstance(error, LocalError):
            return error
        if isinstance(error, BaseExceptionGroup) and (reason := _reason(error)):
            return reason
    return None


def _new_token() -> str:
    return secrets.token_hex(32)


def _new_api_key() -> str:
    return f"sk-db-{secrets.token_hex(32)}"
