"""Which processes make a mesh, what each is told, and who waits for whom."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from darkbloom_local import stripe
from darkbloom_local.authority import tls_environment
from darkbloom_local.issuer import ADMINISTRATOR, AUDIENCE
from darkbloom_local.ports import HOST, free_ports
from darkbloom_local.state import StateDir

Environment = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Wiring:
    """Addresses and files that the rooms of one mesh share."""

    state: StateDir
    """Everything of this mesh."""
    ports: Mapping[str, int]
    """Port of each listener, by `room.listener`."""
    database_url: str
    """PostgreSQL, by unix socket."""
    redis_url: str
    """Valkey, by unix socket."""
    mesh_token_file: Path
    """Token of internal calls."""
    local_stripe: bool = False
    """Billing talks to a local Stripe."""
    records: bool = False
    """Routers keep decision records."""
    tls: Path | None = None
    """Certificates of the rooms; None where they show each other a token."""

    @property
    def issuer_key(self) -> Path:
        """Key of the development issuer."""
        return self.state.root / "keys" / "login-issuer.pem"

    @property
    def issuers_file(self) -> Path:
        """What billing is told about the development issuer."""
        return self.state.root / "run" / "login-issuers.json"

    routers: int = 1
    """Router replicas: `router`, `router-2` and so on."""
    replicas: int = 1
    """Replicas of every other room."""

    @property
    def router_names(self) -> tuple[str, ...]:
        """Process names of the replicas."""
        return replica_names("router", self.routers)

    @property
    def console(self) -> str:
        """URL of the console."""
        return f"http://{self.address('gateway.http')}/console"

    def addresses(self, listener: str) -> str:
        """Return host:port of one listener of every replica, with commas between."""
        return ",".join(self.address(f"{name}.{listener}") for name in self.router_names)

    def target(self, room: str) -> str:
        """Return what a room dials to reach any replica of another one, by its `grpc` listener."""
        names = replica_names(room, self.replicas)
        addresses = ",".join(self.address(f"{name}.grpc") for name in names)
        return addresses if self.replicas == 1 else f"ipv4:{addresses}"

    def address(self, listener: str) -> str:
        """Return host:port of a listener, named `room.listener`."""
        return f"{HOST}:{self.ports[listener]}"


@dataclass(frozen=True, kw_only=True)
class Room:
    """One service of the mesh."""

    name: str
    """Its directory, its variables' middle part, its log."""
    listeners: Sequence[str]
    """Its listeners, as its ready file names them."""
    environment: Callable[[Wiring], Environment]
    """What it is told beyond what every room is told."""
    migrates: bool = False
    """Whether it owns a schema."""
    program: str = ""
    """Room that it runs, where that is not its name."""

    @property
    def room(self) -> str:
        """The room that it runs."""
        return self.program or self.name

    def argv(self, *arguments: str) -> list[str]:
        """Return the command line of the room."""
        return [sys.executable, "-m", f"darkbloom_{self.room}", *arguments]


def _attestation(wiring: Wiring, name: str = "attestation") -> Environment:
    return {
        "DARKBLOOM_ATTESTATION_LISTEN": wiring.address(f"{name}.grpc"),
        "DARKBLOOM_ATTESTATION_KEY_DIR": str(wiring.state.directory("keys", "attestation")),
        "DARKBLOOM_ATTESTATION_REGISTRY_TARGET": wiring.target("registry"),
        "DATABASE_URL": wiring.database_url,
    }


def _registry(wiring: Wiring, name: str = "registry") -> Environment:
    return {
        "DARKBLOOM_REGISTRY_LISTEN": wiring.address(f"{name}.grpc"),
        "DARKBLOOM_REGISTRY_MANIFEST_KEY_FILE": str(wiring.state.root / "keys" / "manifest-key"),
        "DATABASE_URL": wiring.database_url,
    }


def _billing(wiring: Wiring, name: str = "billing") -> Environment:
    return {
        "DARKBLOOM_BILLING_LISTEN": wiring.address(f"{name}.grpc"),
        "DARKBLOOM_BILLING_ATTESTATION_TARGET": wiring.target("attestation"),
        "DARKBLOOM_BILLING_ANCHOR_PERIOD_S": "1",
        "DARKBLOOM_BILLING_LOGIN_ISSUERS_FILE": str(wiring.issuers_file),
        "DARKBLOOM_BILLING_ADMIN_EMAILS": ADMINISTRATOR,
        "DARKBLOOM_BILLING_STRIPE_SUCCESS_URL": f"{wiring.console}/money?paid=1",
        "DARKBLOOM_BILLING_STRIPE_CANCEL_URL": f"{wiring.console}/money?left=1",
        "DARKBLOOM_BILLING_STRIPE_CONNECT_RETURN_URL": f"{wiring.console}/earnings",
        "DARKBLOOM_BILLING_STRIPE_CONNECT_REFRESH_URL": f"{wiring.console}/earnings?again=1",
        "DATABASE_URL": wiring.database_url,
        **(
            stripe.billing_environment(wiring.address("stripe.http")) if wiring.local_stripe else {}
        ),
    }


def _router(wiring: Wiring, name: str = "router") -> Environment:
    return {
        "DARKBLOOM_ROUTER_REPLICA": name,
        "DARKBLOOM_ROUTER_PUBLIC_LISTEN": wiring.address(f"{name}.public"),
        "DARKBLOOM_ROUTER_INTERNAL_LISTEN": wiring.address(f"{name}.internal"),
        "DARKBLOOM_ROUTER_ATTESTATION_TARGET": wiring.target("attestation"),
        "DARKBLOOM_ROUTER_BILLING_TARGET": wiring.target("billing"),
        "DARKBLOOM_ROUTER_REGISTRY_TARGET": wiring.target("registry"),
        "DARKBLOOM_ROUTER_STATE_DIR": str(wiring.state.directory(name)),
        "REDIS_URL": wiring.redis_url,
        **({"DATABASE_URL": wiring.database_url} if wiring.records else {}),
    }


def _gateway(wiring: Wiring, name: str = "gateway") -> Environment:
    issuer = f"http://{wiring.address('issuer.http')}"
    return {
        "DARKBLOOM_GATEWAY_LISTEN": wiring.address(f"{name}.http"),
        "DARKBLOOM_GATEWAY_ROUTER_TARGET": wiring.addresses("internal"),
        "DARKBLOOM_GATEWAY_BILLING_TARGET": wiring.target("billing"),
        "DARKBLOOM_GATEWAY_ATTESTATION_TARGET": wiring.target("attestation"),
        "DARKBLOOM_GATEWAY_REGISTRY_TARGET": wiring.target("registry"),
        "DARKBLOOM_GATEWAY_ADMIN_KEY_FILE": str(wiring.state.root / "keys" / "admin-key"),
        "DARKBLOOM_GATEWAY_CONSOLE_URL": wiring.console,
        "DARKBLOOM_GATEWAY_SIGN_IN_AUTHORIZE_URL": f"{issuer}/authorize",
        "DARKBLOOM_GATEWAY_SIGN_IN_TOKEN_URL": f"{issuer}/token",
        "DARKBLOOM_GATEWAY_SIGN_IN_CLIENT_ID": AUDIENCE,
        "DARKBLOOM_GATEWAY_STATE_DIR": str(wiring.state.directory(name)),
        # What providers of this mesh have imported: holds come close to the price by themselves.
        "DARKBLOOM_GATEWAY_TOKENIZERS_DIR": str(wiring.state.directory("models")),
        "DARKBLOOM_GATEWAY_SEALING_KEYS_FILE": str(wiring.state.root / "keys" / "sealing-keys"),
        "REDIS_URL": wiring.redis_url,
    }


ATTESTATION = Room(name="attestation", listeners=("grpc",), environment=_attestation, migrates=True)
REGISTRY = Room(name="registry", listeners=("grpc",), environment=_registry, migrates=True)
BILLING = Room(name="billing", listeners=("grpc",), environment=_billing, migrates=True)
ROUTER = Room(name="router", listeners=("public", "internal"), environment=_router)
GATEWAY = Room(name="gateway", listeners=("http",), environment=_gateway)

ROOMS: Sequence[Room] = (ATTESTATION, REGISTRY, BILLING, ROUTER, GATEWAY)
"""Every room, in the order in which they start; they stop in the opposite one."""

_ENVIRONMENTS: Mapping[str, Callable[..., Environment]] = {
    "attestation": _attestation,
    "registry": _registry,
    "billing": _billing,
    "router": _router,
    "gateway": _gateway,
}


def replica_names(room: str, count: int) -> tuple[str, ...]:
    """Return the process names of so many replicas of a room."""
    return (room, *(f"{room}-{number}" for number in range(2, count + 1)))


def rooms(routers: int, replicas: int = 1) -> Sequence[Room]:
    """Return every room, and each further replica, in the order of starting."""
    return (
        *ROOMS,
        *(
            _replica(room, name)
            for room in ROOMS
            for name in replica_names(room.name, routers if room is ROUTER else replicas)[1:]
        ),
    )


def _replica(room: Room, name: str) -> Room:
    """Return one more replica of a room as a process; the first one's migration serves it."""
    environment = partial(_ENVIRONMENTS[room.name], name=name)
    return replace(room, name=name, program=room.name, migrates=False, environment=environment)


def choose_ports(http_port: int | None, routers: int = 1, replicas: int = 1) -> dict[str, int]:
    """Choose a port for each listener; `http_port` fixes the gateway's."""
    ours = [
        f"{room.name}.{listener}"
        for room in rooms(routers, replicas)
        for listener in room.listeners
    ]
    names = [*ours, "issuer.http", "stripe.http"]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    if http_port is not None:
        ports["gateway.http"] = http_port
    return ports


def common_environment(wiring: Wiring, room: str, ready_file: Path) -> Environment:
    """Return what every room is told."""
    token = {"DARKBLOOM_MESH_TOKEN_FILE": str(wiring.mesh_token_file)}
    return {
        "DARKBLOOM_ENV": "development",
        **(token if wiring.tls is None else tls_environment(wiring.tls, room)),
        f"DARKBLOOM_{room.upper()}_READY_FILE": str(ready_file),
        f"DARKBLOOM_{room.upper()}_DRAIN_GRACE_S": "10",
    }
