"""Opens a shift: picks and hashes the models, loads the first, makes a stream."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import final

import structlog
from darkbloom_edge.boxes import KeyPair
from darkbloom_edge.replay import SenderKeyMemory
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.serve import Service

from darkbloom_provider.agent import Agent
from darkbloom_provider.code_release import CodeRelease
from darkbloom_provider.config import ProviderConfig
from darkbloom_provider.desk import Desk, Stats
from darkbloom_provider.device_key import DeviceKey
from darkbloom_provider.dialling import Dialler
from darkbloom_provider.engines import claims_of, make_engine, preload, take_inventory
from darkbloom_provider.fence import Fence
from darkbloom_provider.hardening import Hardening
from darkbloom_provider.hardware import Hardware
from darkbloom_provider.isolation import measure
from darkbloom_provider.loads import Loads
from darkbloom_provider.models.store import ModelStore
from darkbloom_provider.presentation import Presence
from darkbloom_provider.ready import announce
from darkbloom_provider.shift import Kitchen, Shift
from darkbloom_provider.stocking import make_stock
from darkbloom_provider.terminals import UnacknowledgedTerminals
from darkbloom_provider.witness import Witness

_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True, slots=True)
class Lasting:
    """What outlives a shift: it is the same for as long as the process lives."""

    key_pair: KeyPair
    """K."""
    signer: DeviceKey
    hardening: Hardening
    release: CodeRelease
    witness: Witness
    hardware: Hardware
    generation: str
    """Random id of this process: equal across streams means the same K."""
    memory: SenderKeyMemory = field(default_factory=SenderKeyMemory)
    terminals: UnacknowledgedTerminals = field(default_factory=UnacknowledgedTerminals)
    stats: Stats = field(default_factory=Stats)
    fence: Fence = field(default_factory=Fence)


@final
class Opener:
    """Makes shifts.

    Args:
        config: what to serve, and with which engine.
        service: parent of the engine's work.
        lasting: what every shift shares.
        dialler: to the router; None where it is never asked.
        clock: of everything.
    """

    def __init__(
        self,
        *,
        config: ProviderConfig,
        service: Service,
        lasting: Lasting,
        dialler: Dialler | None,
        clock: Clock,
    ) -> None:
        self.own_ports: set[int] = {int(service.listeners["metrics"].rpartition(":")[2])}
        """Every port that this process may listen on."""
        self._config = config
        self._service = service
        self.lasting = lasting
        self.dials = dialler is not None
        """Whether a router is asked at all."""
        self._dialler = dialler
        self._clock = clock
        self._announced = config.ready_file is None

    async def open(self) -> Shift:
        """Return a shift that is ready to run.

        Raises:
            ProviderError: a model is missing or corrupt, or cannot be loaded.
        """
        config = self._config
        inventory = await asyncio.to_thread(take_inventory, config)
        engine = make_engine(config, inventory, self._clock)
        store = ModelStore(config.store_root)
        inventory.mark(store)
        running = self._service.spawn(engine.run(), name="engine")
        loads = Loads(
            engine,
            inventory.builds,
            slots=config.max_model_slots,
            clock=self._clock,
            claims=claims_of(config),
            idle_s=config.idle_timeout_mins * 60.0,
        )
        changed = _Changed()
        stock = make_stock(
            config, store, inventory, engine=engine, loads=loads, clock=self._clock, changed=changed
        )
        kitchen = Kitchen(engine=engine, loads=loads, inventory=inventory, stock=stock)
        _log.info("models_loading", models=[build.build_id for build in inventory.builds])
        try:
            await preload(loads, inventory.builds, config)
            agent = None if self._dialler is None else self._agent(kitchen, self._dialler)
        except BaseException:
            inventory.release()
            await engine.close()
            raise
        if agent is not None:
            changed.tell = agent.models_changed
            stock.listener = agent
        _log.info("models_loaded")
        return Shift(kitchen, agent, running, self._clock)

    def _agent(self, kitchen: Kitchen, dialler: Dialler) -> Agent:
        config, lasting = self._config, self.lasting
        agent = Agent(
            presence=Presence(
                encryption_key=lasting.key_pair.public,
                signer=lasting.signer,
                hardware=lasting.hardware,
                hardening=lasting.hardening,
                release=lasting.release,
                models=kitchen.inventory.live_models(),
                backend=backend_of(config),
                name=config.name,
                private_only=config.private_only,
                generation=lasting.generation,
                isolation=partial(measure, self.own_ports),
            ),
            witness=lasting.witness,
            desk=Desk(
                key_pair=lasting.key_pair,
                signer=lasting.signer,
                engine=kitchen.engine,
                memory=lasting.memory,
                terminals=lasting.terminals,
                hosted=kitchen.hosted,
                loads=kitchen.loads,
                stock=kitchen.stock,
                clock=self._clock,
                stats=lasting.stats,
                fence=lasting.fence,
            ),
            dialler=dialler,
            state_file=config.folders.state,
            heartbeat_interval_s=config.heartbeat_interval_s,
            uniform=secrets.SystemRandom().random,
        )
        self._announce(agent)
        return agent

    def _announce(self, agent: Agent) -> None:
        """Write the ready file with the first registration, and remove it at the end."""
        path = self._config.ready_file
        if path is None or self._announced:
            return
        self._announced = True
        self._service.spawn(announce(path, agent, self._service.listeners), name="ready")
        self._service.on_close(partial(asyncio.to_thread, path.unlink, missing_ok=True))


class _Changed:
    """Tells whoever there is that the inventory has changed; the agent is made later."""

    tell: Callable[[], None] | None = None

    def __call__(self) -> None:
        if self.tell is not None:
            self.tell()


def backend_of(config: ProviderConfig) -> str:
    """Return the engine's name on the wire."""
    return "scripted" if config.engine == "scripted" else "mlx-lm"
