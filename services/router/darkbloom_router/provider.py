"""One connected provider and its candidacies: the live state that gates and prices read.

A `Candidate` is one (provider, build) pair with everything that a scan needs prepared: whether a
gate that no request can change is shut, until when its trust lasts, and its price. The fleet
rebuilds them after each change, so that a scan of a thousand candidates is a thousand cheap tests.
"""

from dataclasses import dataclass, field
from enum import IntFlag

from darkbloom_router.faults.memory import Faults
from darkbloom_router.faults.pair import PairFaults
from darkbloom_router.groups import GroupKey
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
_FULL, _FULL_AT_WORK = 0.90, 0.80
"""Memory pressure from which a lost machine is suspected to have run out."""


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
    serial: str = ""
    """Attested serial; empty where attestation knows none."""
    account_id: str = ""
    """Account that is paid; empty while unlinked."""
    remote: bool = False
    """Another replica holds its stream; this is a mirror."""
    epoch: int = 0
    """Fencing epoch of its lease; 0 where a single replica runs."""

    connected: bool = True
    restoring: bool = False
    """What is durable about this identity has not come back yet."""
    draining: bool = False
    drain_until: float = float("inf")
    """When a drain that only a heartbeat announced is forgotten."""
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
    service_ms: float = 0.0
    """Work that was promised to running attempts, over all builds."""
    capacity_at: float = float("-inf")
    """When the capacity in force came."""
    faults: Faults | None = None
    """What is held against this machine; shared with `faults.memory`."""
    indexed_account: str = ""
    """Account under which the fleet finds it."""
    candidates: dict[str, "Candidate"] = field(default_factory=dict)

    @property
    def stable_id(self) -> bytes:
        """The best name that survives a reconnect: identity key, else account, else session."""
        if self.identity_key:
            return b"k" + self.identity_key
        if self.account_id:
            return b"a" + self.account_id.encode()
        return b"s" + self.provider_id.encode()

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
        for slot in self.capacity.slots.values():
            if slot.budget_max > 0:
                return _BUDGET_CAP
        for memory_gb, cap in _MEMORY_CAPS:
            if self.memory_gb <= memory_gb:
                return cap
        return _LARGEST_CAP

    @property
    def short_of_memory(self) -> bool:
        """Whether a loss of it now looks like its system had no memory left."""
        limit = _FULL_AT_WORK if self.inflight else _FULL
        return self.beat.pressure >= limit

    @property
    def busiest_build(self) -> str:
        """The build with most attempts here; empty where it lists none."""
        return max(self.candidates, key=lambda name: self.candidates[name].inflight, default="")

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
    pending_prompt: int = 0
    """Prompt tokens of attempts that have not produced content yet."""
    lasts: GroupKey | None = None
    """What the gates say of it that attempts and measurements do not move."""
    group: GroupKey | None = None
    """Group of the fleet's index that it stands in."""
    row: int = -1
    """Position in that group."""
    wake_at: float = float("inf")
    """When the passing of time alone changes a gate."""

    median_tps: float = 0.0
    """Fleet median of this build on this chip family; 0 is unknown."""
    quality_cap: int = 0
    """Attempts at which each still gets its pace; 0 is unknown."""
    reported_tps: float = 0.0
    """What this machine adds to the fleet median."""
    measured_at: float = float("-inf")
    """When its measured rates last moved."""

    state: SlotState = SlotState.UNKNOWN
    """`slot_state`, and the numbers below, as the last measurements gave them."""
    cap: int = 0
    """`concurrency_cap`."""
    machine_cap: int = 0
    """That of the machine."""
    oversized: bool = False
    """It is not resident and can never fit."""
    state_ms: float = 0.0
    """Price of the slot's state."""
    health_ms: float = 0.0
    load_ms: float = 0.0
    """Until the weights are resident."""
    crowding: float = 1.0
    """By what factor rows of other builds slow a prompt down here."""
    rows_elsewhere: int = 0
    """Rows of other builds that the machine reports, those that wait included."""

    token_ms: float = 0.0
    """Forecast per prompt token, rows of other builds considered."""
    written_ms: float = 0.0
    """Forecast per output token."""
    start_ms: float = 0.0
    """Forecast until this prompt is begun: loading, and prompts ahead."""
    doubt: str = ""
    """Why forecasts are not believed, in a closed word."""

    room: float = 0.0
    """Tokens that still fit."""
    rank_ms: float = 0.0
    prompt_ms: float = 0.0
    """Milliseconds per prompt token."""
    output_ms: float = 0.0
    """Milliseconds per output token that the ranking counts."""
    surplus_ms: float = 0.0
    """Price of standing on a machine that is larger than the build needs."""
    projected_tps: float = 0.0
    """Pace per request once one more runs."""
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
    def pair(self) -> PairFaults | None:
        """What is held against this build on this machine."""
        faults = self.provider.faults
        return faults.pairs.get(self.build.build) if faults else None

    @property
    def base_cap(self) -> int:
        """Attempts of this build that the engine and the machine allow."""
        slot = self.slot
        cap = self.provider.concurrency_cap
        return min(slot.max_concurrency, cap) if slot and slot.max_concurrency > 0 else cap

    @property
    def concurrency_cap(self) -> int:
        """Attempts of this build that may be in flight here, each at a fair pace."""
        return min(self.base_cap, self.quality_cap) if self.quality_cap else self.base_cap

    @property
    def occupancy(self) -> int:
        """Attempts of this build here: those we know of, or those that it reports."""
        slot = self.slot
        return max(self.inflight, slot.running + slot.waiting) if slot else self.inflight

    @property
    def weights_gb(self) -> float:
        """Size of the weights as advertised, else as the catalog says."""
        return (self.facts.size_bytes or self.build.size_bytes) / 1e9

    @property
    def thermal(self) -> Thermal:
        """Thermal state of the machine."""
        return self.provider.beat.thermal
