"""Protobuf to domain and back: total, pure, and where numbers of strangers are clamped."""

import itertools
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import IntEnum
from typing import TypeVar

from darkbloom.billing.v1.ledger_pb2 import OpenedCounts
from darkbloom.common.v1.price_pb2 import SignedDocument
from darkbloom.registry.v1 import catalog_pb2
from darkbloom.router.v1 import fleet_pb2, gateway_lane_pb2, provider_link_pb2
from darkbloom_mesh.errors import InvalidArgumentError
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from darkbloom_router.catalog import Desired
from darkbloom_router.explaining import Explanation
from darkbloom_router.hints import KEY_BYTES, MAX_KEYS_PER_REQUEST
from darkbloom_router.inventory import Capacity, Rejection
from darkbloom_router.model import (
    Alias,
    Beat,
    Build,
    CapacityReport,
    Catalog,
    Demand,
    Gate,
    Hardware,
    ModelFacts,
    Opened,
    OwnerPolicy,
    Privacy,
    Signed,
    SlotReport,
    SlotState,
    Thermal,
    TrustLevel,
)
from darkbloom_router.provider import Provider
from darkbloom_router.refusals import Refusal

EnumT = TypeVar("EnumT", bound=IntEnum)

MAX_MODELS = 256
MAX_SLOTS = 64
MAX_TEXT = 256
_MAX_MEMORY_GB = 1024.0
_MAX_BANDWIDTH_GBS = 2000.0
_MAX_DECODE_TPS = 500.0
_MAX_PREFILL_TPS = 20_000.0
_MAX_POTENTIAL = 1_000_000
_MAX_BUDGET = 1 << 26
_MAX_CONCURRENCY = 24
_MAX_TOKENS = 1 << 24
_MAX_SERIALS = 256
_MAX_KV_BYTES = 1 << 26
_SIZE_LIMIT = 1 << 42
_MAX_LOAD_MS = 600_000
_MAX_AGE_S = 1e9
_MAX_FIXTURES = 32


def bounded(value: float, most: float) -> float:
    """Return a number from 0 to `most`; what is not a number, or below 0, is 0."""
    return min(value, most) if math.isfinite(value) and value > 0 else 0.0


def whole(value: int, most: int) -> int:
    """Return an integer from 0 to `most`."""
    return max(0, min(value, most))


def hardware(message: provider_link_pb2.Hardware) -> Hardware:
    """Return the facts of a machine, clamped to what a Mac can be."""
    return Hardware(
        machine_model=message.machine_model[:MAX_TEXT],
        chip_name=message.chip_name[:MAX_TEXT],
        chip_family=message.chip_family[:MAX_TEXT],
        memory_gb=bounded(message.memory_gb, _MAX_MEMORY_GB),
        memory_bandwidth_gbs=bounded(message.memory_bandwidth_gbs, _MAX_BANDWIDTH_GBS),
    )


def privacy(message: provider_link_pb2.PrivacyCapabilities) -> Privacy:
    """Return the hardening flags that routing reads."""
    return Privacy(
        inprocess=message.text_backend_inprocess,
        sealed_chunks=message.encrypted_response_chunks,
        sip=message.sip_enabled,
    )


def model_facts(message: provider_link_pb2.ProviderModel) -> ModelFacts:
    """Return one advertised build."""
    renders = message.template_render_ok if message.HasField("template_render_ok") else True
    return ModelFacts(
        build=message.id[:MAX_TEXT],
        weight_hash=message.weight_hash.lower()[:MAX_TEXT],
        size_bytes=whole(message.size_bytes, _SIZE_LIMIT),
        vision=message.vision,
        tools=renders,
        renderings=_renderings(message.template_fixtures),
    )


def _renderings(fixtures: Mapping[str, str]) -> Mapping[str, str]:
    """Return digests by fixture, in bounds."""
    found = itertools.islice(fixtures.items(), _MAX_FIXTURES)
    return {name[:MAX_TEXT]: digest[:MAX_TEXT] for name, digest in found}


def beat(message: provider_link_pb2.Heartbeat) -> Beat:
    """Return a heartbeat with every number clamped."""
    system = message.system
    return Beat(
        draining=message.status == provider_link_pb2.PROVIDER_STATUS_DRAINING,
        warm=frozenset(message.warm_models[:MAX_SLOTS]),
        pressure=bounded(system.memory_pressure, 1.0),
        cpu=bounded(system.cpu_usage, 1.0),
        thermal=_enum(Thermal, system.thermal_state, Thermal.UNKNOWN),
        capacity=_capacity(message.capacity) if message.HasField("capacity") else None,
    )


def _capacity(message: provider_link_pb2.BackendCapacity) -> CapacityReport:
    free = (
        bounded(message.free_for_load_gb, _MAX_MEMORY_GB)
        if message.HasField("free_for_load_gb")
        else None
    )
    return CapacityReport(
        sequence=message.capacity_seq,
        slots={slot.model: _slot(slot) for slot in message.slots[:MAX_SLOTS]},
        total_memory_gb=bounded(message.total_memory_gb, _MAX_MEMORY_GB),
        gpu_active_gb=bounded(message.gpu_memory_active_gb, _MAX_MEMORY_GB),
        free_for_load_gb=free,
    )


def _slot(slot: provider_link_pb2.Slot) -> SlotReport:
    return SlotReport(
        build=slot.model,
        state=_enum(SlotState, slot.state, SlotState.OTHER),
        running=whole(slot.num_running, _MAX_CONCURRENCY),
        waiting=whole(slot.num_waiting, _MAX_CONCURRENCY),
        max_concurrency=whole(slot.max_concurrency, _MAX_CONCURRENCY),
        tokens_potential=whole(slot.max_tokens_potential, _MAX_POTENTIAL),
        budget_used=whole(slot.active_token_budget_used, _MAX_BUDGET),
        budget_max=whole(slot.active_token_budget_max, _MAX_BUDGET),
        budget_queued=whole(slot.queued_token_budget, _MAX_BUDGET),
        kv_bytes_per_token=whole(slot.kv_bytes_per_token, _MAX_KV_BYTES),
        decode_tps=bounded(slot.observed_decode_tps, _MAX_DECODE_TPS),
        prefill_tps=bounded(slot.observed_prefill_tps, _MAX_PREFILL_TPS),
        load_ms=whole(slot.model_load_time_ms, _MAX_LOAD_MS),
        stepped_ago_s=bounded(slot.seconds_since_last_step, _MAX_AGE_S)
        if slot.HasField("seconds_since_last_step")
        else None,
    )


def demand(message: gateway_lane_pb2.Open) -> Demand:
    """Return the shape of a request.

    Raises:
        InvalidArgumentError: An id or a bound is missing or out of range.
    """
    if not message.request_id or len(message.request_id) > MAX_TEXT:
        raise InvalidArgumentError("request id is missing or too long", "request_id")
    if not message.build:
        raise InvalidArgumentError("build is missing", "build")
    if not 0 < message.output_bound <= _MAX_TOKENS:
        raise InvalidArgumentError("output bound is out of range", "output_bound")
    if not 0 < message.prompt_bound <= _MAX_TOKENS:
        raise InvalidArgumentError("prompt bound is out of range", "prompt_bound")
    traits = message.traits
    return Demand(
        build=message.build,
        fallback_build=message.fallback_build,
        prompt_tokens=whole(message.prompt_tokens_estimate, _MAX_TOKENS),
        output_bound=message.output_bound,
        prompt_bound=message.prompt_bound,
        account_id=message.account_id,
        policy=_enum(OwnerPolicy, message.owner_policy, OwnerPolicy.PUBLIC),
        machine=message.machine[:MAX_TEXT],
        floor=TrustLevel.parse_floor(message.trust_floor),
        tools=traits.tools,
        tool_constraint=traits.requires_tool_constraint,
        native_media_tools=traits.requires_native_media_tools,
        vision=traits.requires_vision,
        avoid_version=message.avoid_version,
        serials=frozenset(message.provider_serials[:_MAX_SERIALS]),
        prefix_keys=prefix_keys(message.prefix_hint),
    )


def prefix_keys(hint: bytes) -> tuple[bytes, ...]:
    """Return the keys of a prefix hint, shortest prefix first; none where it has another form."""
    if len(hint) % KEY_BYTES or len(hint) > KEY_BYTES * MAX_KEYS_PER_REQUEST:
        return ()
    return tuple(hint[at : at + KEY_BYTES] for at in range(0, len(hint), KEY_BYTES))


def opened(message: provider_link_pb2.Opened) -> Opened:
    """Return the edge's cumulative counts."""
    return Opened(
        frames=message.frames,
        prompt_tokens=max(0, message.prompt_tokens),
        completion_tokens=max(0, message.completion_tokens),
        cached_tokens=max(0, message.cached_tokens),
    )


def opened_counts(counts: Opened) -> OpenedCounts:
    """Return the counts as billing takes them."""
    return OpenedCounts(
        frames=min(counts.frames, (1 << 31) - 1),
        prompt_tokens=counts.prompt_tokens,
        completion_tokens=counts.completion_tokens,
        cached_tokens=counts.cached_tokens,
    )


def catalog(message: catalog_pb2.Catalog) -> Catalog:
    """Return what routing needs of a catalog."""
    return Catalog(
        generation=message.generation,
        downloads_granted=message.downloads_are_granted,
        builds={build.id: _build(build) for build in message.builds},
        aliases=tuple(
            Alias(
                alias=item.alias_id,
                desired=item.desired_build,
                previous=item.previous_build,
                percent=item.traffic_percent if item.HasField("traffic_percent") else 100,
            )
            for item in message.aliases
            if item.active
        ),
    )


def _build(message: catalog_pb2.Build) -> Build:
    hashes = {item.lower() for item in (*message.accepted_weight_hashes, message.weight_hash)}
    return Build(
        build=message.id,
        accepted_hashes=frozenset(hashes - {""}),
        min_ram_gb=max(0, message.min_ram_gb),
        max_context=max(0, message.max_context_length),
        required_capabilities=frozenset(message.required_provider_capabilities),
        size_bytes=max(0, message.size_bytes),
        version=message.active_version,
        weight_hash=message.weight_hash,
        renderings={
            version.aggregate_sha256: _renderings(version.template.fixtures)
            for version in message.versions
            if version.HasField("template")
        },
    )


def signed(message: SignedDocument) -> Signed:
    """Return a document as it came."""
    return Signed(document=message.document, signature=message.signature, key_id=message.key_id)


def signed_document(document: Signed) -> SignedDocument:
    """Return a document as it goes on."""
    return SignedDocument(
        document=document.document, signature=document.signature, key_id=document.key_id
    )


def refused(refusal: Refusal, gates: dict[Gate, int]) -> gateway_lane_pb2.Refused:
    """Return the last frame of a request that nobody serves."""
    message = gateway_lane_pb2.Refused(
        http_status=refusal.http_status,
        type=refusal.kind,
        code=refusal.code,
        reason=gateway_lane_pb2.RefusalReason.ValueType(int(refusal.reason)),
        message=refusal.message,
        gates=[
            gateway_lane_pb2.GateCount(reason=_gate(gate), providers=count)
            for gate, count in sorted(gates.items())
        ],
    )
    if refusal.retry_after_s is not None:
        message.retry_after.CopyFrom(Duration(seconds=refusal.retry_after_s))
    return message


def rejected_models(rejections: list[Rejection]) -> list[provider_link_pb2.RejectedModel]:
    """Return why builds are not routed, for the answer to a registration."""
    return [
        provider_link_pb2.RejectedModel(
            id=item.build, reason=_gate(Gate.NOT_SERVING_MODEL), detail=item.detail
        )
        for item in rejections
    ]


def desired_models(items: list[Desired], generation: int) -> provider_link_pb2.DesiredModels:
    """Return what the catalog wants a provider to hold."""
    return provider_link_pb2.DesiredModels(
        catalog_generation=generation,
        models=[
            provider_link_pb2.DesiredModel(
                model_name=item.alias,
                desired_build=item.desired,
                previous_build=item.previous,
                version=item.version,
                aggregate_sha256=item.weight_hash,
            )
            for item in items
        ],
    )


def facts(provider: Provider) -> gateway_lane_pb2.ProviderFacts:
    """Return what response headers may say about a provider."""
    return gateway_lane_pb2.ProviderFacts(
        provider_id=provider.provider_id,
        chip_name=provider.hardware.chip_name,
        machine_model=provider.hardware.machine_model,
        version=provider.version,
        backend=provider.backend,
    )


def explanation(found: Explanation) -> fleet_pb2.Explanation:
    """Return why one build is or is not routed."""
    return fleet_pb2.Explanation(
        build=found.build,
        eligible=found.eligible,
        reason=_gate(found.gate),
        evidence=found.evidence,
        remedy=found.remedy,
    )


def routing_status(found: list[Explanation]) -> provider_link_pb2.RoutingStatus:
    """Return the same for the provider's own eyes, all builds at once."""
    return provider_link_pb2.RoutingStatus(
        builds=[
            provider_link_pb2.BuildRouting(
                model_id=item.build,
                eligible=item.eligible,
                reason=_gate(item.gate),
                evidence=item.evidence,
                remedy=item.remedy,
            )
            for item in found
        ]
    )


def build_capacity(row: Capacity, queued: int) -> fleet_pb2.BuildCapacity:
    """Return the live capacity of one build."""
    return fleet_pb2.BuildCapacity(
        build=row.build,
        routable_providers=row.routable,
        warm_providers=row.warm,
        cold_providers=row.cold,
        active_requests=row.active,
        queued_requests=queued,
        token_budget_remaining=row.budget_left,
        token_budget_total=row.budget_total,
        can_accept=row.routable > 0 and queued == 0,
    )


def timestamp(unix_s: float) -> Timestamp:
    """Return a protobuf timestamp."""
    message = Timestamp()
    message.FromDatetime(datetime.fromtimestamp(unix_s, UTC))
    return message


def duration(seconds: float) -> Duration:
    """Return a protobuf duration, not below zero."""
    whole_s, rest_ns = divmod(int(max(0.0, seconds) * 1e9), 1_000_000_000)
    return Duration(seconds=whole_s, nanos=rest_ns)


def _gate(gate: Gate) -> provider_link_pb2.GateReason.ValueType:
    return provider_link_pb2.GateReason.ValueType(int(gate))


def _enum(kind: type[EnumT], value: int, other: EnumT) -> EnumT:
    """Return the member of that number; one that this build does not know is `other`."""
    try:
        return kind(value)
    except ValueError:
        return other
