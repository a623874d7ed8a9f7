"""What every lane of one agent shares: keys, engine, memory and counters."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from darkbloom_edge.envelope import KeyPair
from darkbloom_edge.replay import SenderKeyMemory
from darkbloom_edge.signatures import IdentitySigner
from darkbloom_mesh.clock import Clock

from darkbloom_provider.attempt import Hosted
from darkbloom_provider.engine.interface import Engine
from darkbloom_provider.fence import Fence
from darkbloom_provider.loads import Loads
from darkbloom_provider.terminals import UnacknowledgedTerminals
from darkbloom_provider.wishes import WishTaker


@dataclass(slots=True)
class Stats:
    """Cumulative counters for heartbeats."""

    requests_served: int = 0
    tokens_generated: int = 0
    cancellations_received: int = 0
    cancellations_before_output: int = 0
    generation_errors_after_output: int = 0
    unknown_streams: int = 0
    """Frames for streams that are nobody's here; counted only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Desk:
    """What every lane of one agent shares."""

    key_pair: KeyPair
    signer: IdentitySigner
    engine: Engine
    memory: SenderKeyMemory
    terminals: UnacknowledgedTerminals
    hosted: Mapping[str, Hosted]
    """Builds that are verified, by id; not all of them are in memory."""
    loads: Loads
    clock: Clock
    stock: WishTaker | None = None
    """Hears what the network wishes; None where nobody does."""
    stats: Stats = field(default_factory=Stats)
    fence: Fence = field(default_factory=Fence)
