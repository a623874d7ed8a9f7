"""What the load generator is told to do: one scenario against one address, as JSON."""

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What to send, and how."""

    host: str
    port: int
    path: str
    done: str
    """What only the end of a whole stream has in it."""
    body: str
    """The JSON body of every request."""
    api_key: str
    concurrency: int
    seconds: float
    """Measured time, after the warm-up."""
    warmup_s: float
    stream: bool
    interval_s: float = 0.0
    """Pace of the upstream's chunks, for judging clean streams; 0 judges none."""
    stagger_s: float = 0.0
    """The connections begin evenly over this time instead of all at once."""
    requests_each: int = 0
    """A connection stops after this many requests; 0 goes by time."""
    core: int = -1
    """Where the generator runs; -1 leaves it to the system."""

    def encode(self) -> bytes:
        """Return the task as the load generator reads it."""
        return json.dumps(asdict(self)).encode()


def decode(data: str) -> Task:
    """Read a task."""
    return Task(**json.loads(data))
