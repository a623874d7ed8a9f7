"""How each process of a mesh is started: stores, rooms, providers, each until it is ready."""

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darkbloom_local import kept, ready, stripe
from darkbloom_local.children import Children, run_once
from darkbloom_local.environment import inherited
from darkbloom_local.issuer import trust
from darkbloom_local.process import Command
from darkbloom_local.provider import ProviderSetup
from darkbloom_local.stores import Postgres, Valkey
from darkbloom_local.wiring import Room, Wiring, common_environment

ISSUER_NAME = "issuer"
_READY_S = 60.0
_PROVIDER_READY_S = 180.0
_MIGRATE_S = 120.0
_POSTGRES_STOP_S = 20.0


@dataclass(kw_only=True)
class Launcher:
    """Starts processes of one mesh; each method returns once its process serves."""

    wiring: Wiring
    """Addresses and files."""
    children: Children
    """Who keeps the processes."""
    postgres: Postgres
    """The cluster."""
    valkey: Valkey
    """The cache."""
    schemas: Sequence[Room]
    """Rooms that own a schema."""
    environment: dict[str, Mapping[str, str]]
    """Variables on top of ours, by process name."""
    programs: Mapping[str, Sequence[str]]
    """Command lines that replace ours, by process name."""
    said: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """What each process said when it became ready."""
    _copied: bool = False
    """The cluster began as a copy that holds every schema."""
    _to_keep: bool = False
    """The cluster is new, and the next one of this process may begin as a copy of it."""

    async def begin_postgres(self) -> None:
        """Start PostgreSQL first; a new one is a copy where one is kept and data need not last."""
        if not self.postgres.exists and not self.postgres.durable:
            self._copied = await asyncio.to_thread(self._kept.give, self._owners, self.postgres)
            self._to_keep = not self._copied
        await self.start_postgres()

    async def start_postgres(self) -> None:
        """Start PostgreSQL, made on first use."""
        await asyncio.to_thread(self.postgres.prepare)
        child = self.children.adopt(self.postgres.launch())
        await asyncio.to_thread(self.postgres.wait_ready, child)

    async def start_valkey(self) -> None:
        """Start Valkey."""
        await asyncio.to_thread(self.valkey.prepare)
        child = self.children.adopt(self.valkey.launch())
        await asyncio.to_thread(self.valkey.wait_ready, child)

    async def start_owners(self) -> None:
        """Bring every schema up to date, and start the rooms that live by theirs."""
        if self._to_keep:
            async with asyncio.TaskGroup() as migrations:
                for room in self.schemas:
                    migrations.create_task(self._migrate(room))
            await self.children.stop("postgres", _POSTGRES_STOP_S)
            await asyncio.to_thread(self._kept.keep, self._owners, self.postgres)
            await self.start_postgres()
            self._to_keep, self._copied = False, True

        async with asyncio.TaskGroup() as starts:
            for room in self.schemas:
                starts.create_task(self._start_owner(room))

    async def _start_owner(self, room: Room) -> None:
        if not self._copied:
            await self._migrate(room)
        if room.migrates:
            await self.start_room(room)

    async def _migrate(self, room: Room) -> None:
        await run_once(
            f"{room.name} migration",
            room.argv("migrate"),
            self.room_environment(room),
            self.wiring.state.log(f"{room.name}-migrate"),
            _MIGRATE_S,
        )

    async def start_room(self, room: Room) -> None:
        """Start a room."""
        await self._start(
            Command(
                name=room.name,
                argv=self.programs.get(room.name, room.argv()),
                env=inherited() | self.room_environment(room),
                log=self.wiring.state.log(room.name),
            ),
            self._ready_file(room.name),
            _READY_S,
        )

    async def start_issuer(self) -> None:
        """Start the development issuer, and write down for billing what it is."""
        port = self.wiring.ports["issuer.http"]
        self.wiring.issuers_file.write_text(json.dumps(trust(port)))
        ready_file = self._ready_file(ISSUER_NAME)
        arguments = (str(self.wiring.issuer_key), str(port), str(ready_file))
        await self._start(
            Command(
                name=ISSUER_NAME,
                argv=[sys.executable, "-m", "darkbloom_local.issuer_app", *arguments],
                env=inherited(),
                log=self.wiring.state.log(ISSUER_NAME),
            ),
            ready_file,
            _READY_S,
        )

    async def start_stripe(self) -> None:
        """Start the local Stripe, which tells the gateway what happens there."""
        ports, ready_file = self.wiring.ports, self._ready_file(stripe.NAME)
        kept = self.wiring.state.root / "stripe.json"
        await self._start(
            Command(
                name=stripe.NAME,
                argv=stripe.argv(ports["stripe.http"], ports["gateway.http"], kept, ready_file),
                env={**inherited(), **stripe.environment()},
                log=self.wiring.state.log(stripe.NAME),
            ),
            ready_file,
            _READY_S,
        )

    async def start_provider(self, setup: ProviderSetup) -> None:
        """Start a provider; it has loaded its model afterwards, and may not be registered yet."""
        await self._start(
            Command(
                name=setup.name,
                argv=self.programs.get(setup.name, setup.argv()),
                env=self.provider_environment(setup),
                log=self.wiring.state.log(setup.name),
            ),
            setup.ready_file,
            _PROVIDER_READY_S,
        )

    @property
    def _kept(self) -> kept.KeptClusters:
        return kept.of_this_process()

    @property
    def _owners(self) -> frozenset[str]:
        return frozenset(room.name for room in self.schemas)

    def room_environment(self, room: Room) -> dict[str, str]:
        """Return everything of ours that a room is told."""
        return {
            **common_environment(self.wiring, room.room, self._ready_file(room.name)),
            **room.environment(self.wiring),
            **self.environment.get(room.name, {}),
        }

    def provider_environment(self, setup: ProviderSetup) -> dict[str, str]:
        """Return the whole environment of a provider."""
        return inherited() | setup.environment() | dict(self.environment.get(setup.name, {}))

    async def _start(self, command: Command, ready_file: Path, timeout_s: float) -> None:
        ready.forget(ready_file)
        child = self.children.start(command)
        self.said[command.name] = await ready.wait(child, ready_file, timeout_s)

    def _ready_file(self, name: str) -> Path:
        return self.wiring.state.path("run", f"{name}.json")
