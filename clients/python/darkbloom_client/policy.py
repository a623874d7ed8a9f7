"""The consumer's policy: what must be proven before a prompt leaves the process."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from darkbloom_edge.apple.roots import AppleRoots, apple_roots
from darkbloom_edge.verdict import TrustLevel

from darkbloom_client.pins import Pins

MAX_AGE = timedelta(minutes=16)
"""Oldest evidence that any policy takes."""
MAX_SKEW = timedelta(minutes=2)
"""How far the signers' clocks may be ahead of ours."""
MINIMUM_MICROS = 100
"""Micro-USD that a network usually asks for a request at least."""
_TOKENS_PER_UNIT = 1_000_000
MAX_ATTEMPTS = 3
"""Offers that one request may use up."""


class PolicyError(ValueError):
    """A policy that cannot be satisfied, or that does not say enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceLimit:
    """The dearest offer that is taken."""

    input_micros: int
    """Micro-USD per 1,000,000 prompt tokens."""
    output_micros: int
    """Micro-USD per 1,000,000 completion tokens."""
    hold_micros: int | None = None
    """Most micro-USD that may be held for one request; None for its bounds at these prices."""
    minimum_micros: int = MINIMUM_MICROS
    """Most micro-USD that a request may cost whose tokens cost less."""

    def most(self, prompt_tokens: int, completion_tokens: int) -> int:
        """Return the most micro-USD that so many tokens may cost."""
        tokens = (
            prompt_tokens * self.input_micros // _TOKENS_PER_UNIT
            + completion_tokens * self.output_micros // _TOKENS_PER_UNIT
        )

        return max(tokens, self.minimum_micros)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What must hold. There is no fallback: what does not satisfy it is refused by name.

    With `trust="hardware"` the machine's evidence must lead to Apple's roots: an unmodified app of
    `app_id` says with a key that Apple attested that session, identity key and K are its own. The
    operator's word satisfies nothing. `self_signed` asks for the machine's own signatures.
    """

    pins: Pins
    """Keys that are believed: without them nothing can be."""
    app_id: str | None = None
    """`<TeamID>.<bundle id>` of the provider's app; needed for `hardware`."""
    trust: TrustLevel = "hardware"
    """Lowest level of a machine that may read the prompt."""
    allowed_releases: Collection[str] | None = None
    """Code releases that may read it, whatever they are for; None takes every one that the pinned
    log has blessed for everybody."""
    max_age: timedelta = MAX_AGE
    """Oldest evidence, by our own clock; at most 16 minutes."""
    allow_unattested: bool = False
    """Take machines of which nothing is proven, and releases blessed for development only: for a
    mesh of one's own. Signatures, keys, ages and the log are checked all the same."""
    max_price: PriceLimit | None = None
    """Dearest offer; None takes whatever price the gateway has signed."""
    max_attempts: int = MAX_ATTEMPTS
    """Offers that one request may use up before its first content."""
    apple: AppleRoots = field(default_factory=apple_roots, repr=False)
    """Roots of Apple's evidence, as pinned in the package."""

    def __post_init__(self) -> None:
        if self.trust not in ("none", "self_signed", "hardware"):
            raise PolicyError("trust is none, self_signed or hardware")
        if not timedelta(0) < self.max_age <= MAX_AGE:
            raise PolicyError("max_age is at most 16 minutes")
        if self.trust == "none" and not self.allow_unattested:
            raise PolicyError("trust none needs allow_unattested=True")
        if self.needs_apple and not self.app_id:
            raise PolicyError(
                "hardware needs app_id: whose app Apple has to vouch for; a development mesh "
                "needs allow_unattested=True"
            )
        if self.allowed_releases is not None and isinstance(self.allowed_releases, str):
            raise PolicyError("allowed_releases is a collection of releases")
        if not 1 <= self.max_attempts <= MAX_ATTEMPTS * 2:
            raise PolicyError(f"max_attempts is 1 to {MAX_ATTEMPTS * 2}")

    @property
    def needs_apple(self) -> bool:
        """Whether nothing without Apple's signature is taken."""
        return self.trust == "hardware" and not self.allow_unattested

    def described(self) -> Mapping[str, Any]:
        """Say in plain words what is asked; no key is in it."""
        releases = self.allowed_releases
        return {
            "trust": "unattested allowed" if self.allow_unattested else self.trust,
            "app_id": self.app_id,
            "allowed_releases": "every one in the pinned log"
            if releases is None
            else sorted(releases),
            "max_age_s": int(self.max_age.total_seconds()),
            "verdict_keys": sorted(self.pins.verdict_keys),
            "log_keys": sorted(self.pins.log_keys),
            "max_price": None
            if self.max_price is None
            else {
                "input_micros": self.max_price.input_micros,
                "output_micros": self.max_price.output_micros,
                "minimum_micros": self.max_price.minimum_micros,
                "hold_micros": self.max_price.hold_micros,
            },
        }
