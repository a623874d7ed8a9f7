"""The composition root: from configuration to a served stream (spec: provider section 2.1)."""

import asyncio
import json
import secrets
import socket
from collections.abc import MutableMapping
from dataclasses import replace
from functools import partial

import grpc
import structlog
from darkbloom_edge.boxes import KeyPair
from darkbloom_edge.envelope import new_key_pair
from darkbloom_edge.replay import SenderKeyMemory
from darkbloom_mesh.clock import SystemClock
from darkbloom_mesh.serve import Service

from darkbloom_provider import code_release, hardware
from darkbloom_provider.agent import Agent
from darkbloom_provider.attempt import Hosted
from darkbloom_provider.config import ProviderConfig
from darkbloom_provider.device_key import DeviceKey, open_device_key
from darkbloom_provider.dialling import Dialler
from darkbloom_provider.engines import Inventory, load_all, make_engine, take_inventory
from darkbloom_provider.errors import ProviderError
from darkbloom_provider.hardening import Hardening, harden
from darkbloom_provider.link import STOP_S
from darkbloom_provider.loads import Loads
from darkbloom_provider.lock import single_instance
from darkbloom_provider.mac.launcher import Launcher
from darkbloom_provider.presentation import Presence
from darkbloom_provider.ready import announce
from darkbloom_provider.terminals import UnacknowledgedTerminals
from darkbloom_provider.witness import here
from darkbloom_provider.work import Desk

_SETTLE_S = 3.0
"""What a drain keeps for settling; the router usually answers at once."""

_log = structlog.get_logger()


async def serve(config: ProviderConfig, environ: MutableMapping[str, str]) -> int:
    """Run the agent until a signal; returns the exit code.

    Raises:
        ProviderError: it cannot start, with the remedy.
    """
    home = config.folders
    home.create()
    with single_instance(home.lock):
        hardening = harden(environ)
        release = await asyncio.to_thread(code_release.measure)
        # The ready file says more here than that the process runs; `ready` writes it.
        common = replace(config, ready_file=None)
        async with Service(common, room="provider", version=release.version) as service:
            return await _serve(config, service, hardening, release)


async def _serve(
    config: ProviderConfig,
    service: Service,
    hardening: Hardening,
    release: code_release.CodeRelease,
) -> int:
    home, clock = config.folders, SystemClock()
    signer = open_device_key(config)
    key_pair = new_key_pair()
    witness = here(await _greet(config, service, key_pair, signer))
    facts = hardware.detect()
    inventory = await asyncio.to_thread(take_inventory, config)
    engine = make_engine(config, inventory, clock)
    service.spawn(engine.run(), name="engine")
    service.on_close(engine.close)
    _log.info("models_loading", models=[build.build_id for build in inventory.builds])
    await load_all(engine, inventory.builds[: config.max_model_slots])
    loads = Loads(engine, inventory.builds, slots=config.max_model_slots, clock=clock)
    service.spawn(loads.run(), name="loads")
    _log.info("models_loaded")

    agent = Agent(
        presence=Presence(
            encryption_key=key_pair.public,
            signer=signer,
            hardware=facts,
            hardening=hardening,
            release=release,
            models=inventory.models,
            backend="scripted" if config.engine == "scripted" else "mlx-lm",
            name=config.name,
            private_only=config.private_only,
            generation=secrets.token_hex(16),
            metrics_port=int(service.listeners["metrics"].rpartition(":")[2]),
        ),
        witness=witness,
        desk=Desk(
            key_pair=key_pair,
            signer=signer,
            engine=engine,
            memory=SenderKeyMemory(),
            terminals=UnacknowledgedTerminals(),
            hosted=_hosted(inventory),
            loads=loads,
            clock=clock,
        ),
        dialler=_dialler(config),
        state_file=home.state,
        heartbeat_interval_s=config.heartbeat_interval_s,
        uniform=secrets.SystemRandom().random,
    )
    service.spawn(agent.run(), name="agent")
    service.on_drain(lambda: agent.drain(_patience_s(config.drain_grace_s)))
    if config.ready_file is not None:
        path = config.ready_file
        service.spawn(announce(path, agent, service.listeners), name="ready")
        service.on_close(lambda: asyncio.to_thread(path.unlink, missing_ok=True))
    return await service.wait()


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


def _hosted(inventory: Inventory) -> dict[str, Hosted]:
    return {
        model.id: Hosted(build=model.id, weight_hash=model.weight_hash)
        for model in inventory.models
    }


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


def release_json(release: code_release.CodeRelease) -> str:
    """Return a measured code release as the attestation service takes it."""
    return json.dumps(
        {
            "code_release": release.code_release,
            "version": release.version,
            "platform": release.platform,
            "python_hash": release.python_hash,
            "runtime_hash": release.runtime_hash,
            "template_hashes": release.template_hashes,
        },
        indent=2,
    )
