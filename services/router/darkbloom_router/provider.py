"""One connected provider and its candidacies: the live state that gates and prices read.

A `Candidate` is one (provider, build) pair with everything that a scan needs prepared: whether a
gate that no request can change is shut, until when its trust lasts, and its price. The fleet
rebuilds them after each change, so that a scan of a thousand candidates is a thousand cheap tests.
"""

from dataclasses import dataclass, field
from enum import IntFlag

from darkbloom_router.model import (
    Admission,
    Beat,
    Build,
    CapacityReport,
    Hardware,
    ModelFacts,
    Privacy,
    SlotReport,
    SlotState,
    Thermal,
    TrustLevel,
    Verdict,
)

_NO_BUDGET_CAP = 4
_BUDGET_CAP = 24
_MEMORY_CAPS = ((24, 2), (48, 4), (96, 6), (128, 8))
_LARGEST_CAP = 12


class Lack(IntFlag):
    """Abilities that a candidate does not have; a request wants some of them."""

    NONE = 0
    TOOLS = 1
    TOOL_CONSTRAINT = 2
    NATIVE_MEDIA = 4
    VISION = 8


@dataclass(slots=True, eq=False)
class Provider:
    """Live state of one provider stream; identity of the object is identity of the stream."""

    provider_id: str
    identity_key: bytes
    encryption_key: bytes
    hardware: Hardware = field(default_factory=Hardware)
    privacy: Privacy = field(default_factory=Privacy)
    backend: str = ""
    version: str = ""
    private_only: bool = False
    runtime_capabilities: frozenset[str] = frozenset()
    constraint_builds: frozenset[str] = frozenset()
    account_id: str = ""
    """Account that is paid; empty while unlinked."""
    remote: bool = False
    """Another replica holds its stream; this is a mirror."""
    epoch: int = 0
    """Fencing epoch of its lease; 0 where a single replica runs."""

    connected: bool = True
    draining: bool = False
    drain_fence: bool = False
    """Set by an explicit drain; only a new stream clears it."""
    untrusted: str = ""
    """Why, in a closed word; empty while trusted."""
    untrusted_for_good: bool = False
    runtime_verified: bool = False
    verdict: Verdict | None = None
    passed_at: float | None = None
    """When the last challenge was passed."""

    beat: Beat = field(default_factory=Beat)
    capacity: CapacityReport | None = None
    joined_at: float = 0.0
    beat_at: float = 0.0
    silent_sweeps: int = 0
    inflight: int = 0
    """Attempts debited here, over all builds."""
    pending_tokens: int = 0
    candidates: dict[str, "Candidate"] = field(default_factory=dict)

    @property
    def level(self) -> TrustLevel:
        """The level in force; none without a verdict."""
        return self.verdict.level if self.verdict else TrustLevel.NONE

    @property
    def admission(self) -> Admission:
        """The admission in force; nobody without a verdict."""
        return self.verdict.admission if self.verdict else Admission.NOBODY

    @property
    def owner_only(self) -> bool:
        """Whether only the owner's requests may come here."""
        return self.private_only or self.admission is Admission.OWNER

    @property
    def status(self) -> str:
        """`untrusted`, `draining` or `online`."""
        if self.untrusted:
            return "untrusted"
        return "draining" if self.draining or self.drain_fence else "online"

    @property
    def memory_gb(self) -> float:
        """Total memory: measured when reported, else registered."""
        if self.capacity and self.capacity.total_memory_gb > 0:
            return self.capacity.total_memory_gb
        return self.hardware.memory_gb

    @property
    def concurrency_cap(self) -> int:
        """Attempts that this machine may have in flight (routing section 7)."""
        if self.capacity is None:
            return _NO_BUDGET_CAP
        if any(slot.budget_max > 0 for slot in self.capacity.slots.values()):
            return _BUDGET_CAP
        for memory_gb, cap in _MEMORY_CAPS:
            if self.memory_gb <= memory_gb:
                return cap
        return _LARGEST_CAP

    def owned_by(self, account_id: str) -> bool:
        """Whether that account earns with this machine."""
        return bool(account_id) and self.account_id == account_id


@dataclass(slots=True, eq=False)
class Candidate:
    """One (provider, build) pair, prepared for scans by `fleet.Fleet`."""

    provider: Provider
    build: Build
    facts: ModelFacts
    inflight: int = 0
    pending_tokens: int = 0
    row: int = -1
    """Position in the fleet's array of this build."""

    shut: bool = True
    """A gate that no request can change is failing."""
    trusted_until: float = 0.0
    effective_level: TrustLevel = TrustLevel.NONE
    owner_only: bool = False
    lacks: int = 0
    room: float = 0.0
    """Tokens that still fit."""
    fixed_ms: float = 0.0
    prompt_ms: float = 0.0
    """Milliseconds per prompt token."""
    output_ms: float = 0.0
    load: int = 0
    """Attempts of this build, then of the whole machine: one number to compare near-ties by."""

    @property
    def slot(self) -> SlotReport | None:
        """The engine's own report on this build, if there is one."""
        capacity = self.provider.capacity
        return capacity.slots.get(self.build.build) if capacity else None

    @property
    def slot_state(self) -> SlotState:
        """State from the capacity block, which is authoritative, else from `warm_models`."""
        if slot := self.slot:
            return slot.state
        if self.provider.capacity is None and self.build.build in self.provider.beat.warm:
            return SlotState.IDLE
        return SlotState.UNKNOWN

    @property
    def concurrency_cap(self) -> int:
        """Attempts of this build that may be in flight here."""
        slot = self.slot
        cap = self.provider.concurrency_cap
        return min(slot.max_concurrency, cap) if slot and slot.max_concurrency > 0 else cap

    @property
    def weights_gb(self) -> float:
        """Size of the weights as advertised, else as the catalog says."""
        return (self.facts.size_bytes or self.build.size_bytes) / 1e9

    @property
    def thermal(self) -> Thermal:
        """Thermal state of the machine."""
        return self.provider.beat.thermal
