"""What replicas cost each other: telling another router of machines that have changed, and hearing.

    python -m tests.bench.mirrors --providers 1000 --rounds 10

The holder's publisher and the asker's peer are the router's own. Between them frames are bytes, 32
machines in each; what HTTP/2 adds is left out. Every machine serves a request and has beaten before
each round, so all of its state is told. The last line is one JSON object.
"""

import argparse
import asyncio
import gc
import json
import sys
import tracemalloc
from time import process_time
from typing import Any

import grpc
from darkbloom.common.v1.frame_pb2 import Frame, FrameBatch, FrameKind
from darkbloom.router.v1 import provider_link_pb2 as pl
from darkbloom.router.v1.peer_lane_pb2 import PeerHello, PeerWelcome
from darkbloom_edge import verdict as signed
from darkbloom_edge.signatures import Ed25519Signer
from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.clock import SystemClock
from darkbloom_router import convert
from darkbloom_router.model import Admission, Build, Catalog, Signed, TrustLevel, Verdict
from darkbloom_router.provider import Provider
from darkbloom_router.replicas.asker import AskerParts, Peer
from darkbloom_router.replicas.carried import Carriage
from darkbloom_router.replicas.members import Member
from darkbloom_router.replicas.publisher import Publisher
from darkbloom_router.simulate.core import Core, make_core
from darkbloom_router.simulate.lanes import SimulatedLane
from darkbloom_router.simulate.scenario import Scenario

BUILDS = ("mlx-community/a-model-of-8b-4bit", "mlx-community/another-of-30b-a3b-4bit")
HASH = "ab" * 32
ASKERS = 3
MEMBER = Member(replica="holder", session="holder/1", address="holder:1")


class Wire:
    """The asker's call: what the holder has written, parsed as gRPC would."""

    def __init__(self) -> None:
        self._batches: asyncio.Queue[bytes | None] = asyncio.Queue()

    def hand(self, kind: int, stream: int, message: Any) -> int:
        """Take one control frame; returns how many bytes it is."""
        frame = Frame(stream=stream, kind=kind, payload=message.SerializeToString())
        batch = FrameBatch(frames=[frame]).SerializeToString()
        self._batches.put_nowait(batch)
        return len(batch)

    def end(self) -> None:
        """Let the asker read to the end."""
        self._batches.put_nowait(None)

    async def read(self) -> Any:
        """Return the next batch."""
        batch = await self._batches.get()
        self._batches.task_done()
        return grpc.aio.EOF if batch is None else FrameBatch.FromString(batch)

    async def write(self, _batch: FrameBatch, /) -> None:
        """Take what the asker says; nobody answers."""

    async def read_out(self) -> None:
        """Wait until everything has been read."""
        await self._batches.join()


class Holder:
    """A router with machines, and what it tells."""

    def __init__(self, wire: Wire, providers: int) -> None:
        self.core = catalogued()
        self.sent_bytes = 0
        self.publisher = Publisher(Carriage(self.core.fleet, self.core.attempts), self.core.clock)
        self._wire = wire
        signer = Ed25519Signer.generate()
        self._machines = [self._join(index, signer) for index in range(providers)]
        self._sequence = 0

    def _join(self, index: int, signer: Ed25519Signer) -> Provider:
        provider = machine(index, signer)
        fleet = self.core.fleet
        message = registration(provider)
        fleet.join(provider, [convert.model_facts(model) for model in message.models])
        fleet.claim(provider)
        fleet.debit(provider.candidates[BUILDS[0]], 2048)
        self.publisher.joined(provider, message)
        return provider

    def subscribe(self) -> None:
        """Describe everybody to all askers, of which one listens."""
        self.publisher.subscribe(SimulatedLane(self._send, _nothing))
        for _ in range(ASKERS - 1):
            self.publisher.subscribe(SimulatedLane(_drop, _nothing))

    def beat(self) -> None:
        """Let every machine say something new."""
        self._sequence += 1
        message = heartbeat(self._sequence)
        for provider in self._machines:
            self.publisher.beat(provider, message)

    def _send(self, kind: int, stream: int, message: Any) -> None:
        self.sent_bytes += self._wire.hand(kind, stream, message)


def catalogued() -> Core:
    """Return a router that knows the builds."""
    core = make_core(Scenario())
    hashes = frozenset({HASH})
    builds = {name: Build(build=name, accepted_hashes=hashes) for name in BUILDS}
    core.fleet.set_catalog(Catalog(builds=builds))
    return core


def machine(index: int, signer: Ed25519Signer) -> Provider:
    """Return a connected machine with a verdict as attestation signs them."""
    document, signature = signed.sign_verdict(
        signed.Verdict(
            verdict_id=f"ver_{index:026d}",
            provider_id=f"prov_{index:026d}",
            identity_key="A" * 88,
            encryption_key="A" * 44,
            trust_level="hardware",
            admission="public",
            evidence=[f"evi_{index:026d}"] * 3,
            code_release=HASH,
            issued_at="2026-11-22T12:00:00Z",
            expires_at="2026-11-22T12:16:00Z",
        ),
        signer,
    )
    return Provider(
        provider_id=f"prov_{index:026d}",
        identity_key=b"\x04" + index.to_bytes(64, "big"),
        encryption_key=b"K" * 32,
        hardware=convert.hardware(hardware()),
        privacy=convert.privacy(privacy()),
        backend="mlx-lm",
        version="1.0.0",
        account_id=f"acct_{index:026d}",
        runtime_verified=True,
        verdict=Verdict(
            verdict_id=f"ver_{index:026d}",
            signed=Signed(document=document, signature=signature),
            level=TrustLevel.HARDWARE,
            admission=Admission.PUBLIC,
            expires_at=1e9,
            expires_unix=1e9,
        ),
        passed_at=0.0,
    )


def registration(provider: Provider) -> pl.Register:
    """Return what a machine registers with."""
    return pl.Register(
        hardware=hardware(),
        privacy=privacy(),
        backend=provider.backend,
        version=provider.version,
        encryption_key=provider.encryption_key,
        python_hash=HASH,
        runtime_hash=HASH,
        models=[
            pl.ProviderModel(
                id=name,
                size_bytes=4_000_000_000,
                model_type="qwen3",
                quantization="4bit",
                weight_hash=HASH,
                identity_hash=HASH,
            )
            for name in BUILDS
        ],
    )


def hardware() -> pl.Hardware:
    """Return what a machine says that it is."""
    return pl.Hardware(
        machine_model="Mac16,5",
        chip_name="Apple M4 Max",
        chip_family="M4",
        chip_tier="Max",
        memory_gb=64,
        memory_bandwidth_gbs=546,
        os_version="26.1",
    )


def privacy() -> pl.PrivacyCapabilities:
    """Return what hardening gave it."""
    return pl.PrivacyCapabilities(
        text_backend_inprocess=True, sip_enabled=True, encrypted_response_chunks=True
    )


def heartbeat(sequence: int) -> pl.Heartbeat:
    """Return what a machine that serves says of itself."""
    slot = pl.Slot(
        model=BUILDS[0],
        state=pl.SLOT_STATE_RUNNING,
        num_running=1,
        max_concurrency=8,
        active_tokens=700,
        max_tokens_potential=2048,
        active_token_budget_used=2048,
        active_token_budget_max=200_000,
        kv_bytes_per_token=65_536,
        observed_decode_tps=40.0 + sequence % 7,
        observed_prefill_tps=700.0,
        model_load_time_ms=6000,
        steps_executed=sequence,
        seconds_since_last_step=0.1,
    )
    message = pl.Heartbeat(
        status=pl.PROVIDER_STATUS_SERVING, active_model=BUILDS[0], warm_models=[BUILDS[0]]
    )
    message.system.memory_pressure, message.system.cpu_usage = 0.4, 0.2
    message.capacity.slots.append(slot)
    message.capacity.capacity_seq, message.capacity.total_memory_gb = sequence, 64
    return message


def asker(core: Core, wire: Wire) -> Peer:
    """Return another router's end."""
    parts = AskerParts(
        fleet=core.fleet,
        attempts=core.attempts,
        downlink=core.downlink,
        losses=core.losses,
        lanes=core.lanes,
        timers=core.timers,
        clock=SystemClock(),
        meter=core.meter,
        hello=PeerHello(),
        drain_lines=core.dispatcher.drain_lines,
        granted=_drop,
        orphaned=_nothing,
        refused=_nothing,
        terminal=_drop,
    )
    return Peer(MEMBER, lambda: wire, parts, Backoff(lambda: 0.5), close=_close)


async def measure(providers: int, rounds: int) -> dict[str, float]:
    """Return what one machine that has changed costs a holder for each asker, and an asker."""
    wire, core = Wire(), catalogued()
    holder, peer = Holder(wire, providers), asker(core, wire)
    wire.hand(FrameKind.FRAME_KIND_PEER_WELCOME, 0, PeerWelcome(session=MEMBER.session))
    running = asyncio.create_task(peer.run())
    holder.subscribe()
    gc.collect()
    tracemalloc.start()
    await wire.read_out()
    gc.collect()
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()

    tell_s = hear_s = 0.0
    holder.sent_bytes = 0
    for _ in range(rounds):
        holder.beat()
        started = process_time()
        holder.publisher.flush()
        told = process_time()
        await wire.read_out()
        tell_s += told - started
        hear_s += process_time() - told
    if peer.holding != providers:
        raise RuntimeError(f"{peer.holding} of {providers} machines are mirrored")
    running.cancel()
    await asyncio.wait({running}, timeout=5)
    count = providers * rounds
    return {
        "providers": providers,
        "rounds": rounds,
        "tell_us": round(1e6 * tell_s / count / ASKERS, 1),
        "hear_us": round(1e6 * hear_s / count, 1),
        "told_bytes": round(holder.sent_bytes / count),
        "mirror_bytes": round(kept / providers),
    }


def _drop(_first: Any, _second: Any, message: Any = None) -> None:
    """Write for somebody who is not looked at."""
    if message is not None:
        Frame(payload=message.SerializeToString()).SerializeToString()


def _nothing(_what: Any) -> None:
    """Nobody waits for it here."""


async def _close() -> None:
    """There is nothing to close."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--providers", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=10)
    given = parser.parse_args()
    sys.stdout.write(json.dumps(asyncio.run(measure(given.providers, given.rounds))) + "\n")


if __name__ == "__main__":
    main()
