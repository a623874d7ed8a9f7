"""What every request of one worker shares."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from darkbloom_mesh.clock import Clock

from darkbloom_gateway.catalog import Catalog
from darkbloom_gateway.config import GatewayConfig
from darkbloom_gateway.ledger import Ledger
from darkbloom_gateway.limits import RateLimiter
from darkbloom_gateway.links import RouterLinks
from darkbloom_gateway.media.fetcher import Fetcher
from darkbloom_gateway.meters import Meters
from darkbloom_gateway.owners import Owners
from darkbloom_gateway.receipts import ReceiptPress
from darkbloom_gateway.recount import Recounts
from darkbloom_gateway.shortfall import Shortfalls
from darkbloom_gateway.spans import Spans
from darkbloom_gateway.tiers import Tiers
from darkbloom_gateway.tokenizers import Tokenizers
from darkbloom_gateway.verdicts import VerdictDesk


@dataclass(slots=True)
class CatalogShelf:
    """The newest catalog; None until one was read."""

    catalog: Catalog | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """Collaborators of the token path; built once in `app`."""

    config: GatewayConfig
    clock: Clock
    links: RouterLinks
    ledger: Ledger
    limiter: RateLimiter
    tiers: Tiers
    owners: Owners
    shortfalls: Shortfalls
    verdicts: VerdictDesk
    shelf: CatalogShelf
    tokenizers: Tokenizers
    fetcher: Fetcher
    recounts: Recounts
    press: ReceiptPress
    meters: Meters
    spans: Spans
    hint_secret: bytes = field(repr=False)
    """Keys prefix hints and cache scopes; the same in every gateway."""
    entropy: Callable[[int], bytes]
    """Randomness for ids, receipt keys and nonces."""
    refresh_keys: Callable[[], Awaitable[None]]
    """Reads attestation's keys again, for a verdict under an unknown one."""
