"""What is measured, seen alike: where it listens, which processes it is, what they use."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.bench import placement
from tests.bench.placement import Memory

HOST = "127.0.0.1"


@dataclass(frozen=True, kw_only=True, slots=True)
class System:
    """One thing to send load to."""

    name: str
    port: int
    api_key: str
    model: str
    processes: Mapping[str, int] = field(default_factory=dict)
    """Those under test, by name: the root of each process tree."""
    endpoints: Sequence[str] = ("chat",)
    """Names of those that are measured."""
    stores: Sequence[str] = ()
    """Which of them are PostgreSQL and Valkey."""

    def cpu(self) -> dict[str, float]:
        """Return CPU seconds of each process so far."""
        return {name: placement.cpu_seconds(pid) for name, pid in self.processes.items()}

    def memory(self) -> dict[str, Memory]:
        """Return the memory of each process."""
        return {name: placement.memory(pid) for name, pid in self.processes.items()}
