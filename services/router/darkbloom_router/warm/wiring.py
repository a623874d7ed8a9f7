"""The warm pool as configured, between the router's other parts."""

from darkbloom_router.config import RouterConfig
from darkbloom_router.fleet import Fleet
from darkbloom_router.meter import Meter
from darkbloom_router.provider import Provider
from darkbloom_router.queueing import Line
from darkbloom_router.replicas.lane import ProviderLane
from darkbloom_router.replicas.parts import Replicas
from darkbloom_router.timers import Timers
from darkbloom_router.warm.keeper import WarmKeeper
from darkbloom_router.warm.pool import WarmPool, WarmRules


def keeper(
    config: RouterConfig,
    fleet: Fleet,
    line: Line,
    lanes: dict[Provider, ProviderLane],
    timers: Timers,
    meter: Meter,
    replicas: Replicas,
) -> WarmKeeper:
    """Make the one that loads builds, where it is on and this replica leads."""
    rules = WarmRules(observe_only=config.warm_pool == "observe", min_warm=config.least_warm)
    return WarmKeeper(
        WarmPool(fleet, line.depth, rules),
        lanes,
        timers,
        meter,
        waiting=line.depths,
        is_leader=lambda: config.warm_pool != "off" and replicas.leads,
    )
