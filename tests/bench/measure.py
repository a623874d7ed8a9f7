"""One measurement: the load generator's report beside the CPU time that it cost."""

import asyncio
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.bench import placement
from tests.bench.scenarios import WARMUP_S, Scenario
from tests.bench.systems import HOST, System
from tests.bench.task import Task


class LoadError(Exception):
    """The load generator failed, or nothing was answered."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """What one run of a scenario showed."""

    seen: Mapping[str, Any]
    """The load generator's report."""
    cpu_s: Mapping[str, float]
    """CPU time by process under test."""
    stores: Sequence[str]

    def figure(self, name: str) -> float:
        """Return one figure of the report, or one that follows from report and CPU time."""
        match name:
            case "requests_per_cpu_s":
                return self._per_cpu_s("requests_total", self._python_s())
            case "requests_per_cpu_s_with_stores":
                return self._per_cpu_s("requests_total", sum(self.cpu_s.values()))
            case "chunks_per_cpu_s":
                return self._per_cpu_s("events_total", self._python_s())
            case "chunks_per_gateway_s":
                return self._per_cpu_s("events_total", self.cpu_s.get("gateway", 0.0))
        return float(self.seen[name])

    def cpu_us_per_request(self) -> dict[str, float]:
        """Return CPU time of one request by process, in microseconds."""
        return {
            name: seconds * 1e6 / self.seen["requests_total"]
            for name, seconds in self.cpu_s.items()
        }

    def cores(self) -> dict[str, float]:
        """Return how many cores each process kept busy while requests ran."""
        span_s = self.seen["requests"] / self.seen["requests_per_s"]
        return {name: round(seconds / span_s, 3) for name, seconds in self.cpu_s.items()}

    def _python_s(self) -> float:
        return sum(seconds for name, seconds in self.cpu_s.items() if name not in self.stores)

    def _per_cpu_s(self, what: str, cpu_s: float) -> float:
        return float(self.seen[what]) / cpu_s if cpu_s else 0.0


async def measure(system: System, scenario: Scenario) -> Sample:
    """Run one scenario against one system.

    Raises:
        LoadError: The generator failed, or not a single request was answered.
    """
    task = Task(
        host=HOST,
        port=system.port,
        path=scenario.endpoint.path,
        done=scenario.endpoint.done,
        body=scenario.body(system.model),
        api_key=system.api_key,
        concurrency=scenario.concurrency,
        seconds=scenario.seconds,
        warmup_s=0.0 if scenario.requests_each else WARMUP_S,
        stream=scenario.stream,
        interval_s=scenario.interval_s,
        stagger_s=scenario.stagger_s,
        requests_each=scenario.requests_each,
        core=placement.AROUND if placement.can_pin() else -1,
    )
    before = system.cpu()
    seen = await _generate(task)
    cpu_s = placement.spent(before, system.cpu())
    if not seen["requests"]:
        raise LoadError(f"{system.name} answered nothing of “{scenario.name}”: {seen['failures']}")
    return Sample(seen=seen, cpu_s=cpu_s, stores=system.stores)


def median(samples: Sequence[Sample], name: str) -> float:
    """Return the median of a figure over rounds."""
    return statistics.median(sample.figure(name) for sample in samples)


def median_cpu_us(samples: Sequence[Sample]) -> dict[str, float]:
    """Return the median CPU time of one request by process, in microseconds."""
    found = [sample.cpu_us_per_request() for sample in samples]
    return {name: statistics.median(one[name] for one in found) for name in found[0]}


async def _generate(task: Task) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.load"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(task.seconds * 2 + 90):
            out, error = await process.communicate(task.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise LoadError(f"the load generator failed: {error.decode()[-2000:]}")
    report: dict[str, Any] = json.loads(out)
    return report
