"""A process of many agents: `python -m tests.crowd COUNT`, told the rest like one provider.

Each agent is whole: its own identity, keys, engine, memory and stream. What they share is what
costs processor time without proving anything twice: measuring the code, hashing the model, and
looking at the sockets of the process, of which a machine has a few and a crowd has hundreds.
"""

import asyncio
import json
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from darkbloom_edge.envelope import new_key_pair
from darkbloom_edge.replay import SenderKeyMemory
from darkbloom_mesh.clock import SystemClock
from darkbloom_mesh.config import main_config
from darkbloom_mesh.serve import Service, run
from darkbloom_provider import code_release, hardware, identity, isolation
from darkbloom_provider.agent import Agent
from darkbloom_provider.attempt import Hosted
from darkbloom_provider.config import ProviderConfig
from darkbloom_provider.desk import Desk
from darkbloom_provider.device_key import SoftwareKey
from darkbloom_provider.dialling import Dialler
from darkbloom_provider.engines import load_all, make_engine, take_inventory
from darkbloom_provider.hardening import Hardening, harden
from darkbloom_provider.inventory import Inventory
from darkbloom_provider.isolation import Isolation
from darkbloom_provider.loads import Loads
from darkbloom_provider.presentation import Presence
from darkbloom_provider.terminals import UnacknowledgedTerminals
from darkbloom_provider.witness import Witness

from tests.crowd.homes import home_of

_PATIENCE_S = 5.0


async def serve(config: ProviderConfig, count: int) -> int:
    """Run so many agents until a signal; the ready file is written when all are registered."""
    hardening = harden(os.environ)  # noqa: TID251 - it scrubs the real environment
    release = await asyncio.to_thread(code_release.measure)
    inventory = await asyncio.to_thread(take_inventory, config)
    # The ready file says more here than that the process runs.
    common = replace(config, ready_file=None)
    async with Service(common, room="provider", version=release.version) as service:
        listens_on = {int(service.listeners["metrics"].rpartition(":")[2])}
        shared = Shared(hardening, release, inventory, isolation.measure(listens_on))
        agents = [await _agent(config, service, shared, number) for number in range(count)]
        for number, agent in enumerate(agents):
            service.spawn(agent.run(), name=f"agent.{number}")
        service.on_drain(lambda: _drain(agents))
        service.spawn(_announce(config.ready_file, agents, service.listeners), name="ready")
        return await service.wait()


@dataclass(frozen=True)
class Shared:
    """What all agents of the process have in common."""

    hardening: Hardening
    release: code_release.CodeRelease
    inventory: Inventory
    isolation: Isolation


async def _agent(config: ProviderConfig, service: Service, shared: Shared, number: int) -> Agent:
    home, clock = home_of(config.home, number), SystemClock()
    signer = SoftwareKey(identity.load_or_create(home.identity_key))
    key_pair = new_key_pair()
    engine = make_engine(config, shared.inventory, clock)
    service.spawn(engine.run(), name=f"engine.{number}")
    service.on_close(engine.close)
    builds = shared.inventory.builds
    await load_all(engine, builds[: config.max_model_slots])
    loads = Loads(engine, builds, slots=config.max_model_slots, clock=clock)
    service.spawn(loads.run(), name=f"loads.{number}")
    return Agent(
        presence=Presence(
            encryption_key=key_pair.public,
            signer=signer,
            hardware=hardware.detect(),
            hardening=shared.hardening,
            release=shared.release,
            models=shared.inventory.models,
            backend="scripted",
            name=f"{config.name}-{number:03}",
            private_only=False,
            generation=secrets.token_hex(16),
            isolation=lambda: shared.isolation,
        ),
        witness=Witness(),
        desk=Desk(
            key_pair=key_pair,
            signer=signer,
            engine=engine,
            memory=SenderKeyMemory(),
            terminals=UnacknowledgedTerminals(),
            hosted={
                model.id: Hosted(build=model.id, weight_hash=model.weight_hash)
                for model in shared.inventory.models
            },
            loads=loads,
            clock=clock,
        ),
        # In turn, so that replicas begin with as many each.
        dialler=Dialler(config.coordinators, first=number, credentials=None),
        state_file=home.state,
        heartbeat_interval_s=config.heartbeat_interval_s,
        uniform=secrets.SystemRandom().random,
    )


async def _drain(agents: Sequence[Agent]) -> None:
    async with asyncio.TaskGroup() as drains:
        for agent in agents:
            drains.create_task(agent.drain(_PATIENCE_S))


async def _announce(
    path: Path | None, agents: Sequence[Agent], listeners: Mapping[str, str]
) -> None:
    for agent in agents:
        await agent.registered.wait()
    if path is not None:
        facts = {"pid": os.getpid(), "agents": len(agents), "listeners": dict(listeners)}
        await asyncio.to_thread(_write, path, json.dumps(facts))


def _write(path: Path, text: str) -> None:
    staged = path.with_suffix(f".{os.getpid()}")
    staged.write_text(text)
    staged.replace(path)


def main() -> None:
    """Serve with the scripted engine; leave with the exit code."""
    config = replace(main_config(ProviderConfig, "provider"), engine="scripted")
    sys.exit(run(lambda: serve(config, int(sys.argv[1]))))


if __name__ == "__main__":
    main()
