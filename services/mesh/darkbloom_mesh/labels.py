"""What the labels of metrics may say: closed words, or a bounded number of names.

A value outside of its list is counted as `other`, so that no caller, provider or defect can make a
series of his own; how often that happens is a metric itself. No label is a provider's id, an
account, a key or anything that somebody typed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

OTHER = "other"


@dataclass(frozen=True)
class Words:
    """A closed list."""

    words: frozenset[str]

    def judge(self) -> Callable[[str], bool]:
        """Return what says whether a value may be shown."""
        return self.words.__contains__


@dataclass(frozen=True)
class AtMost:
    """The first so many names of one kind that turn up; their kind is bounded by code or catalog.

    Attributes:
        limit: Names.
        kind: What they are, for readers.
    """

    limit: int
    kind: str

    def judge(self) -> Callable[[str], bool]:
        """Return what says whether a value may be shown; it remembers who came first."""
        return _First(self.limit).takes


@dataclass
class _First:
    limit: int
    seen: set[str] = field(default_factory=set)

    def takes(self, value: str) -> bool:
        if len(self.seen) < self.limit:
            self.seen.add(value)
        return value in self.seen


Vocabulary = Words | AtMost


def words(text: str, *more: Words, prefix: str = "") -> Words:
    """Return the words of a text, and those of other lists, each with a prefix."""
    own = frozenset(prefix + word for word in text.split())
    return Words(own.union(*(one.words for one in more)))


def prefixed(prefix: str, vocabulary: Words) -> Words:
    """Return a list in which each word has a prefix."""
    return Words(frozenset(prefix + word for word in vocabulary.words))


MODEL = AtMost(512, "a build of the active catalog, or `unknown`")
RPC_METHOD = AtMost(256, "a method of our own services")
ROUTE = AtMost(256, "a template of a route, or `other`")
VERSION = AtMost(4, "what this process was built of")
RELEASE = AtMost(32, "version of an agent of blessed code, `prerelease`, `other` or `unknown`")
METRIC = AtMost(256, "a metric of this list")
HTTP_STATUS = AtMost(64, "a status of HTTP")

ROOM = words("gateway router billing attestation registry unknown")
HTTP_METHOD = words("GET POST PUT PATCH DELETE HEAD OPTIONS other")
PROBE = words("answered refused failed unreachable")
RPC_STATUS = words(
    "ok cancelled unknown invalid_argument deadline_exceeded not_found already_exists"
    " permission_denied resource_exhausted failed_precondition aborted out_of_range unimplemented"
    " internal unavailable data_loss unauthenticated"
)
LINK = words("gateway router provider peer")
DIRECTION = words("in out")
LANE_END = words(
    "peer_closed peer_lost overflow unreadable failed stalled silent drain refused no_welcome"
    " another_session superseded rebalance gone"
)
NOT_LET_IN = words("full pace")
IGNORED = words(
    "foreign_stream unknown_stream unexpected unexpected_kind unreadable malformed early"
    " challenge_unknown code_answer terminal_malformed unknown_provider"
)
RELOAD = words("taken refused")
SINK = words("routing receipts releases traces")

ENDPOINT = words("chat_completions completions responses messages end_to_end")
REQUEST_CLASS = words(
    "success provider_5xx timeout mid_stream rate_limited client_error client_gone"
)
PHASE = words("parse reserve route encrypt queue_wait dispatch total")
TOKEN_KIND = words("prompt cached completion reasoning")
RECOUNT = words("agrees drift")
GONE_PHASE = words("before_first_token after_commit")
TIER = words("account service provider admin")
DIMENSION = words("account key address financial network input_tokens output_tokens")
RECEIPT = words("made recorded repeated rejected anchored dropped")
SEALED = words(
    "opened off replayed unreadable unshared malformed unknown_key not_openable wrong_header stale"
)

DISPATCH = words("success failure timeout retry retry_precontent")
CANCEL_CAUSE = words("unspecified client_gone lost_race timeout router_draining violation")
CANCEL_OUTCOME = words("sent resent")
FAILURE = words(
    "provider_lost provider_left verdict_lapsed reservation_refused first_chunk_timeout deadline"
    " protocol encryption_failure link_congested verdict_declined price terminal_without_answer"
    " draining deadline_unreachable context_exceeded template_render bound_exceeded media_too_large"
    " payload_too_large exceeds_node client_error unsupported_schema capacity model_load"
    " tool_noncompliance provider_timeout provider_error sealed_header"
)
ATTEMPT_CLASS = words(
    "success mid_stream mid_stream_lost mid_stream_timeout mid_stream_violation lane_lost",
    FAILURE,
    CANCEL_CAUSE,
)
EDGE_FAULT = words("unopenable header counts terminal delta")
VERDICT_FAULT = words(
    "unknown_key invalid expired revoked below_floor not_admitted other_provider not_own"
)
ERROR = words("", FAILURE, prefixed("violation_", EDGE_FAULT), prefixed("verdict_", VERDICT_FAULT))
WAIT_END = words("served full timeout gone unservable")
REFUSAL = words(
    "unspecified machine_busy no_provider model_too_large ttft_too_slow queue_full queue_deadline"
    " routing_saturated context_exceeded prompt_too_long oversized_request deadline_unreachable"
    " first_chunk_timeout dispatch_exhausted client_error template_render_failed draining"
    " encryption_failure price machine_offline model_not_loaded offer_expired"
)
DECISION = words("selected none", REFUSAL)
PATH = words("none unique_min tie_queue tie_pending random prefix_affinity alternate hedge")
AUDIT = words("agreed disagreed")
TRUST = words("none self_signed hardware")
HEDGE_VERDICT = words("queued no_idle_capacity global_budget win_rate granted")
BREAKER = words("breaker ejection error_cooldown capacity_cooldown load_cooldown budget_clamp")
POOL = words("warm target")
LOAD = words("sent observed loaded draining memory failed")
PROVIDER_STATE = words("online draining untrusted")
CHIP = words("m1 m2 m3 m4 m5 unknown other")
MEMORY = words("total gpu_active free_for_load")
HINT = words("held missed")
FLOOR_GATE = words("registration")
SUSPICION = words("credit memory_pressure first_token_wedge", EDGE_FAULT)

CHALLENGE = words("passed failed timeout untrusted unavailable unknown")
EVIDENCE_FAULT = words(
    "absent malformed invalid_timestamp invalid_public_key point_not_on_curve signature_failed"
    " invalid_signature_base64 invalid_der_signature no_secure_enclave sip_disabled stale"
    " secure_boot_disabled encryption_key_missing encryption_key_mismatch binary_unknown"
    " wrong_domain wrong_provider nonce_mismatch public_key_mismatch empty_signature"
    " sip_not_reported secure_boot_not_reported rdma_not_reported binary_hash_mismatch"
    " metallib_hash_mismatch capabilities_mismatch weight_hash_mismatch"
    " challenge evidence_rejected violation revoked report_dropped not_admitted durably_revoked"
    " posture_mismatch posture_rejected key_proof_rejected serial_taken",
    prefixed("violation_", words("credit", EDGE_FAULT)),
)
RELEASE_KNOWN = words("known unknown")
PUSH = words("delivered token_gone rejected credentials throttled unavailable")
MDM = words("asked not_enrolled not_asked unavailable")
ADMISSION = words("public owner development")

HOLD = words(
    "held insufficient_funds key_cap_reached key_revoked account_frozen hold_ended"
    " idempotency_conflict not_found invalid_argument"
)
HOLD_END = words("settled released replayed late rejected unknown")
REJECTION = words(
    "verdict_signature verdict_expired admission terminal_signature ids bounds price unlinked"
)
SETTLEMENT = words("", HOLD_END, prefixed("rejected_", REJECTION))
RELEASED = words("", HOLD_END, prefixed("swept_", HOLD_END))
WEBHOOK = words("stored repeated ignored forged conflict done again stuck")
WITHDRAWAL = words("pending queued transferred paid failed manual_reconciliation_required")
BATCH = words("hold resolve facts")
CATALOG_READ = words("snapshot build builds manifest")
STAGE = words("started downloading verified failed loaded")
PREFIX_TIER = words("memory disk")
PREFIX_COUNT = words(
    "lookups hits hit_tokens disk_tokens evicted disk_written disk_bad disk_dropped"
)
