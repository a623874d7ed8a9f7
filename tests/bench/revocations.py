"""`python -m tests.bench.revocations`: from a revocation's commit to its receipt by a router.

Attestation is a process of its own over a durable PostgreSQL; the receiver is the router's own
watch in this process. Each revocation is timed twice: from before the call that causes it, which
includes its transaction, and from that call's answer, which comes after the commit.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
from pathlib import Path
from statistics import median

from darkbloom.attestation.v1 import attestation_service_pb2 as pb
from darkbloom.attestation.v1.attestation_service_pb2_grpc import AttestationServiceStub
from darkbloom_edge.attestation import Challenge
from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.channel import channel
from darkbloom_mesh.clock import SystemClock
from darkbloom_mesh.config import Secret
from darkbloom_router.timers import Timers
from darkbloom_router.watches import RevocationWatch

from tests.component.attestation.harness import (
    Provider,
    release_request,
    verify_request,
    violation,
)
from tests.component.attestation.test_process import TOKEN, environment, listener, start
from tests.stores import postgres

TIMEOUT_S = 30
BAR_S = 1.0
"""From commit to receipt (security §4)."""


class Receiver:
    """The router's watch, and when it heard of each verdict."""

    def __init__(self) -> None:
        self.clock = SystemClock()
        self.heard: dict[str, float] = {}
        self._changed = asyncio.Event()

    def apply(self, verdict_id: str, _identity_key: bytes) -> None:
        self.heard[verdict_id] = self.clock.monotonic()
        self._changed.set()

    async def when(self, verdict_id: str) -> float:
        """Return when a verdict's revocation came."""
        async with asyncio.timeout(TIMEOUT_S):
            while verdict_id not in self.heard:
                self._changed.clear()
                await self._changed.wait()
        return self.heard[verdict_id]


async def admitted(stub: AttestationServiceStub, clock: SystemClock) -> tuple[Provider, str]:
    """A session with a verdict in force."""
    provider = Provider()
    await stub.EvaluateRegistration(provider.registration(clock), timeout=TIMEOUT_S)
    made = await stub.CreateChallenge(
        pb.CreateChallengeRequest(provider_id=provider.provider_id), timeout=TIMEOUT_S
    )
    challenge = Challenge(made.nonce, made.timestamp, provider.provider_id)
    request = verify_request(provider, made.nonce, *provider.answer(challenge))
    judged = await stub.VerifyChallenge(request, timeout=TIMEOUT_S)
    return provider, judged.verdict_id


async def measure(count: int, home: Path) -> list[tuple[float, float]]:
    """Return seconds from call and from commit for each of so many revocations."""
    found: list[tuple[float, float]] = []
    with postgres(durable=True) as cluster, cluster.database() as url:
        env = environment(url, home, DARKBLOOM_ENV="development")
        await (await start(env, "migrate")).communicate()
        process = await start(env)
        target = await listener(process)
        receiver = Receiver()
        clock = receiver.clock
        async with channel(target, mesh_token=Secret(TOKEN), room="bench") as dialled:
            stub: AttestationServiceStub = AttestationServiceStub(dialled)
            await stub.RegisterCodeRelease(release_request(development=True), timeout=TIMEOUT_S)
            timers = Timers(clock)
            watch = RevocationWatch(dialled, timers, clock, Backoff(lambda: 0.5), receiver.apply)
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(watch.run()), tasks.create_task(timers.run())]
                for number in range(count):
                    provider, verdict_id = await admitted(stub, clock)
                    asked = clock.monotonic()
                    await stub.ReportViolation(
                        violation(provider, f"report-{number}"), timeout=TIMEOUT_S
                    )
                    committed = clock.monotonic()
                    came = await receiver.when(verdict_id)
                    found.append((came - asked, max(0.0, came - committed)))
                for task in running:
                    task.cancel()
        process.send_signal(signal.SIGTERM)
        await process.communicate()
    return found


def main() -> int:
    """Measure, print a row, and fail above the bar."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.revocations")
    parser.add_argument("--count", type=int, default=300)
    count = parser.parse_args().count
    with tempfile.TemporaryDirectory(prefix="bench-") as home:
        found = asyncio.run(measure(count, Path(home)))
    for name, column in (("from the call", 0), ("from the commit", 1)):
        times = sorted(row[column] * 1000 for row in found)
        sys.stdout.write(
            f"{name}: p50 {median(times):.1f} ms, p99 {times[int(len(times) * 0.99)]:.1f} ms, "
            f"max {times[-1]:.1f} ms of {len(times)}\n"
        )
    return 0 if max(row[0] for row in found) <= BAR_S else 1


if __name__ == "__main__":
    sys.exit(main())
