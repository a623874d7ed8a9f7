"""The configuration in the words of the domain."""

from darkbloom_router.config import RouterConfig
from darkbloom_router.entry import DispatchLimits
from darkbloom_router.faults.memory import FaultMemory
from darkbloom_router.fleet import Fleet
from darkbloom_router.model import Rules, Selection, Tiering, TrustLevel


def fleet(config: RouterConfig) -> Fleet:
    """Return an empty fleet under the configured rules."""
    return Fleet(rules(config), FaultMemory(error_hold_s=config.error_cooldown_s))


def limits(config: RouterConfig) -> DispatchLimits:
    """Return the bounds of dispatch."""
    return DispatchLimits(
        max_attempts=config.max_attempts,
        default_deadline_s=config.default_deadline_s,
        deadline_token_ms=config.deadline_token_ms,
        reject_models=config.rejected_models,
        queue_before_shed=config.queue_before_shed,
    )


def rules(config: RouterConfig) -> Rules:
    """Return what is demanded of machines, and how one is chosen."""
    return Rules(
        min_trust=TrustLevel.parse_floor(config.min_trust),
        development=config.environment == "development",
        challenge_max_age_s=config.challenge_max_age_s,
        min_version=config.min_version,
        dedicated=config.dedicated_families,
        ttft_ceiling=config.ttft_ceiling,
        selection=Selection(config.selection),
        sample=config.sample,
        min_decode_tps=config.min_decode_tps,
        quality_overcommit=config.quality_overcommit,
        tiering=Tiering(config.tiering),
    )
