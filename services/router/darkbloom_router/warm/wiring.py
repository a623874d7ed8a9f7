"""The warm pool as configured, between the router's other parts."""

from darkbloom_router.config import RouterConfig
from darkbloom_router.core import State, Tools
from darkbloom_router.warm.keeper import WarmKeeper
from darkbloom_router.warm.pool import WarmPool, WarmRules


def keeper(config: RouterConfig, tools: Tools, state: State) -> WarmKeeper:
    """Make the one that loads builds, where it is on and this replica leads."""
    rules = WarmRules(observe_only=config.warm_pool == "observe", min_warm=config.least_warm)
    return WarmKeeper(
        WarmPool(state.fleet, state.line.depth, rules),
        state.lanes,
        tools.timers,
        tools.meter,
        waiting=state.line.depths,
        is_leader=lambda: config.warm_pool != "off" and state.replicas.leads,
    )
