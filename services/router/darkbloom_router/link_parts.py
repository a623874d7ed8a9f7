"""What provider links are made of, and their bounds."""

from collections.abc import Callable
from dataclasses import dataclass, field

from darkbloom_mesh.clock import Clock

from darkbloom_router.challenges import ChallengeTimes
from darkbloom_router.closing import Closing
from darkbloom_router.dispatch import Dispatcher
from darkbloom_router.downlink import Downlink
from darkbloom_router.downloads import Downloads
from darkbloom_router.fleet import Fleet
from darkbloom_router.losses import Losses
from darkbloom_router.meter import Meter
from darkbloom_router.observations import Observations
from darkbloom_router.ports import Attestation, Links
from darkbloom_router.provider import Provider
from darkbloom_router.replicas.lane import ProviderLane
from darkbloom_router.replicas.parts import Replicas
from darkbloom_router.timers import Timers
from darkbloom_router.trust import Trust
from darkbloom_router.warm.keeper import WarmKeeper


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkLimits:
    """Bounds and periods of provider links."""

    max_links: int = 4096
    registrations_per_s: float = 0.0
    """0 has no bound."""
    register_s: float = 9.5
    """Below the 10 s that an agent is promised, and not the instant of the lane's first ping: a
    status that is sent while a write is under way can be lost."""
    heartbeat_s: float = 5.0
    superseded_s: float = 30.0
    """Grace of a stream that a newer one of the same identity replaces."""
    link_poll_s: float = 5.0
    """Between questions for the account of an unlinked machine, and of a linked one:"""
    relink_s: float = 300.0
    max_frame_bytes: int = 1024 * 1024
    challenges: ChallengeTimes = field(default_factory=ChallengeTimes)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkParts:
    """What every link works with."""

    fleet: Fleet
    dispatcher: Dispatcher
    closing: Closing
    downlink: Downlink
    losses: Losses
    lanes: dict[Provider, ProviderLane]
    trust: Trust
    timers: Timers
    clock: Clock
    meter: Meter
    attestation: Attestation
    links: Links
    replicas: Replicas
    warm: WarmKeeper
    seen: Observations
    limits: LinkLimits
    initial_credit: int
    new_id: Callable[[str], str]
    uniform: Callable[[], float]
    downloads: Downloads = field(default_factory=Downloads)
