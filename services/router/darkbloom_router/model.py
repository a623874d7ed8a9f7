"""Words of the router's domain: plain values, no frames, no clock.

Units are in the names; token counts are plain integers; times are seconds of the monotonic clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum, StrEnum, auto


class Gate(IntEnum):
    """Why a provider gets no request; the numbers are those of `router.v1.GateReason`."""

    ELIGIBLE = 0
    ALLOWLIST = 1
    EXCLUDED = 2
    NOT_SERVING_MODEL = 3
    DEDICATED = 4
    DISPATCH_LOAD_COOLDOWN = 5
    ERROR_COOLDOWN = 6
    CAPACITY_COOLDOWN = 7
    BREAKER = 8
    EJECTION = 9
    OFFLINE = 10
    UNTRUSTED = 11
    STATE_RESTORING = 12
    PRIVATE_ONLY = 13
    TRUST_FLOOR = 14
    RUNTIME_UNVERIFIED = 15
    PRIVATE_TEXT = 16
    CHALLENGE_STALE = 17
    TRAIT_FLOOR = 18
    VISION = 19
    SLOT_CRASHED = 20
    SLOT_RELOADING = 21
    NO_HEADROOM = 22
    THERMAL_CRITICAL = 23
    MODEL_TOO_LARGE = 24
    FREE_MEMORY = 25
    TTFT_CEILING = 26
    UNLINKED = 27


class TrustLevel(IntEnum):
    """Ranked trust; comparison is meaningful."""

    NONE = 0
    SELF_SIGNED = 1
    HARDWARE = 2

    @classmethod
    def parse(cls, text: str) -> "TrustLevel":
        """Return the level of that name; anything unknown is `NONE`, so a claim never rises."""
        return _LEVELS.get(text, cls.NONE)

    @classmethod
    def parse_floor(cls, text: str) -> "TrustLevel":
        """Return the floor of that name; anything unknown is `HARDWARE`, so a floor never sinks."""
        return _LEVELS.get(text, cls.HARDWARE)

    @property
    def word(self) -> str:
        """The level as it travels."""
        return self.name.lower()


_LEVELS = {level.name.lower(): level for level in TrustLevel}


class Admission(StrEnum):
    """Whom a verdict lets a provider serve."""

    NOBODY = ""
    PUBLIC = "public"
    OWNER = "owner"
    DEVELOPMENT = "development"

    @classmethod
    def parse(cls, text: str) -> "Admission":
        """Return the admission of that name; anything unknown admits nobody."""
        return cls(text) if text in set(cls) else cls.NOBODY


class OwnerPolicy(IntEnum):
    """Whose machines may serve; the numbers are those of `router.v1.OwnerPolicy`."""

    PUBLIC = 1
    PREFER = 2
    EXCLUSIVE = 3


class Selection(StrEnum):
    """What a choice minimises."""

    COST = "cost"
    """Milliseconds of everything that the request costs (routing section 5)."""
    FIRST_CONTENT = "first_content"
    """Milliseconds to the first content (routing section 6)."""


class Tiering(StrEnum):
    """Whether small builds are kept off large machines (routing section 14)."""

    OFF = "off"
    OBSERVE = "observe"
    ENFORCE = "enforce"


class Blame(Enum):
    """Which memory of faults a failed attempt feeds."""

    NOBODY = auto()
    MACHINE = auto()
    """It failed: strike, breaker, ejection."""
    FULL = auto()
    """It said that it has no room: clamp, cooldown, rate."""
    LOAD = auto()
    """It could not load the weights for this request."""
    LATE = auto()
    """It said that the deadline cannot be met: its forecast is not believed until it reports."""


class Lesson(IntEnum):
    """What one attempt says about a machine; the numbers are those of `router.v1.Lesson`."""

    ACCEPTED = 1
    SUCCESS = 2
    NOTHING = 3
    FAULT = 4
    FULL = 5
    LOAD = 6
    LATE = 7


class SlotState(IntEnum):
    """Engine state of one build; the numbers are those of `router.v1.SlotState`."""

    UNKNOWN = 0
    RUNNING = 1
    IDLE = 2
    IDLE_SHUTDOWN = 3
    CRASHED = 4
    RELOADING = 5
    OTHER = 6

    @property
    def warm(self) -> bool:
        """Whether weights are resident."""
        return self in (SlotState.RUNNING, SlotState.IDLE)


class Thermal(IntEnum):
    """Thermal state; the numbers are those of `router.v1.ThermalState`."""

    UNKNOWN = 0
    NOMINAL = 1
    FAIR = 2
    SERIOUS = 3
    CRITICAL = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """Static facts of a machine, clamped to what can be true."""

    machine_model: str = ""
    chip_name: str = ""
    chip_family: str = ""
    memory_gb: float = 0.0
    memory_bandwidth_gbs: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Privacy:
    """What the agent measured about its own hardening."""

    inprocess: bool = False
    sealed_chunks: bool = False
    sip: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """One advertised build."""

    build: str
    weight_hash: str
    size_bytes: int = 0
    vision: bool = False
    tools: bool = True
    """False when the agent found that the chat template cannot render tools."""
    renderings: Mapping[str, str] = field(default_factory=dict)
    """Digests of what the chat template makes of fixtures, by their names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """One catalog build, as far as routing needs it."""

    build: str
    accepted_hashes: frozenset[str]
    min_ram_gb: int = 0
    max_context: int = 0
    """Tokens; 0 is unknown."""
    required_capabilities: frozenset[str] = frozenset()
    size_bytes: int = 0
    version: str = ""
    weight_hash: str = ""
    renderings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """What the registry's own renderings of fixtures came to, by weight hash and fixture."""

    @property
    def scripted(self) -> bool:
        """Whether the scripted engine, and only it, serves this build."""
        return self.build.startswith("dev/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """A public name and its builds."""

    alias: str
    desired: str
    previous: str = ""
    percent: int = 100
    """Share of machines, and of accounts, that the desired build has reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """The catalog at one generation."""

    generation: int = 0
    builds: dict[str, Build] = field(default_factory=dict)
    aliases: tuple[Alias, ...] = ()
    downloads_granted: bool = False
    """Whether machines fetch only with the registry's leave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotReport:
    """One slot of a capacity snapshot, clamped."""

    build: str
    state: SlotState = SlotState.UNKNOWN
    running: int = 0
    waiting: int = 0
    max_concurrency: int = 0
    tokens_potential: int = 0
    budget_used: int = 0
    budget_max: int = 0
    budget_queued: int = 0
    kv_bytes_per_token: int = 0
    decode_tps: float = 0.0
    prefill_tps: float = 0.0
    """0 is not measured."""
    load_ms: int = 0
    """Measured time to load the weights; 0 is not measured."""
    stepped_ago_s: float | None = None
    """Age of the engine's last step, where it says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityReport:
    """One capacity snapshot, clamped."""

    sequence: int
    slots: dict[str, SlotReport] = field(default_factory=dict)
    total_memory_gb: float = 0.0
    gpu_active_gb: float = 0.0
    free_for_load_gb: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """One heartbeat, clamped."""

    draining: bool = False
    warm: frozenset[str] = frozenset()
    pressure: float = 0.0
    cpu: float = 0.0
    thermal: Thermal = Thermal.UNKNOWN
    capacity: CapacityReport | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A document and its signature, carried and never interpreted here."""

    document: bytes
    signature: bytes
    key_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Attestation's word on one provider stream."""

    verdict_id: str
    signed: Signed
    level: TrustLevel
    admission: Admission
    expires_at: float
    """Monotonic seconds, from the lifetime left when it arrived."""
    expires_unix: float
    """Wall clock, for the owner's eyes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """The shape of one request: all that routing may know about it."""

    build: str
    fallback_build: str = ""
    prompt_tokens: int = 0
    """Estimate."""
    output_bound: int = 256
    prompt_bound: int = 0
    account_id: str = ""
    policy: OwnerPolicy = OwnerPolicy.PUBLIC
    machine: str = ""
    """With EXCLUSIVE: the one connection that is wanted; empty for any of the caller's."""
    floor: TrustLevel = TrustLevel.HARDWARE
    tools: bool = False
    tool_constraint: bool = False
    native_media_tools: bool = False
    vision: bool = False
    avoid_version: str = ""
    serials: frozenset[str] = frozenset()
    """Attested serials that alone may serve; empty is any."""
    prefix_keys: tuple[bytes, ...] = ()
    """Opaque keys of the rendered prefix, shortest prefix first; made by the gateway."""

    @property
    def free(self) -> bool:
        """Whether nobody pays, so that there is no hold to end."""
        return self.policy is OwnerPolicy.EXCLUSIVE

    @property
    def tokens(self) -> int:
        """Tokens that the request may occupy at once, capped so that nothing overflows."""
        return min(self.prompt_tokens + self.output_bound, 1 << 24)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What this replica demands of every provider, and how it chooses among them."""

    min_trust: TrustLevel = TrustLevel.HARDWARE
    development: bool = False
    """Whether a verdict's `development` admission counts."""
    challenge_max_age_s: float = 960.0
    min_version: str = ""
    backends: frozenset[str] = frozenset({"mlx-lm", "scripted"})
    dedicated: tuple[str, ...] = ("gemma-4",)
    """Model families that want machines of their own: parts of a build's name."""
    ttft_ceiling: bool = False
    """Whether a credible forecast past the deadline shuts a gate."""
    selection: Selection = Selection.COST
    near_tie_ms: float = 3000.0
    first_content_tie_ms: float = 100.0
    sample: int = 128
    """Candidates that one decision prices; 0 prices all."""
    min_decode_tps: float = 15.0
    """Pace below which a machine is taken only when nobody is faster; also the quality floor."""
    quality_overcommit: float = 1.2
    """Factor on the quality cap of concurrency; 0 switches that cap off."""
    solo_seeds: tuple[tuple[str, float], ...] = ()
    """Solo decode rates of builds that nobody has measured yet."""
    tiering: Tiering = Tiering.ENFORCE

    @property
    def tie_ms(self) -> float:
        """Window within which two prices count as equal."""
        cost = self.selection is Selection.COST
        return self.near_tie_ms if cost else self.first_content_tie_ms


@dataclass(slots=True)
class Opened:
    """The edge's last word on what it opened; cumulative."""

    frames: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
