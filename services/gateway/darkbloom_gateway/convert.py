"""Protobuf to model and back; pure and total."""

from collections.abc import Iterable
from datetime import UTC, datetime

from darkbloom.attestation.v1.attestation_pb2 import SigningKey
from darkbloom.billing.v1 import account_pb2, ledger_pb2
from darkbloom.common.v1.error_reason_pb2 import ErrorReason
from darkbloom.common.v1.price_pb2 import PriceRow, SignedDocument
from darkbloom.registry.v1 import catalog_pb2
from darkbloom.router.v1 import gateway_lane_pb2, provider_link_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from darkbloom_gateway.carried import Carried
from darkbloom_gateway.catalog import Alias, Build, Catalog, MarketplaceAlias
from darkbloom_gateway.errors import ApiError, ViolationFault, provider_failed
from darkbloom_gateway.install import Install, InstallVersion
from darkbloom_gateway.model import (
    Hold,
    HoldOrder,
    HoldRefusal,
    KeyRecord,
    Offer,
    OpenedCounts,
    Plan,
    Price,
    ProviderFacts,
    SignedBytes,
)
from darkbloom_gateway.self_route import Route

_KINDS = {
    ViolationFault.UNOPENABLE: gateway_lane_pb2.VIOLATION_KIND_UNOPENABLE,
    ViolationFault.HEADER: gateway_lane_pb2.VIOLATION_KIND_HEADER,
    ViolationFault.COUNTS: gateway_lane_pb2.VIOLATION_KIND_COUNTS,
    ViolationFault.TERMINAL: gateway_lane_pb2.VIOLATION_KIND_TERMINAL,
    ViolationFault.DELTA: gateway_lane_pb2.VIOLATION_KIND_DELTA,
}
_POLICIES = {
    Route.PUBLIC: gateway_lane_pb2.OWNER_POLICY_PUBLIC,
    Route.PREFER: gateway_lane_pb2.OWNER_POLICY_PREFER,
    Route.SELF: gateway_lane_pb2.OWNER_POLICY_EXCLUSIVE,
}
_HTTP_ERRORS = range(400, 600)
_MAX_WORD = 64


def key_record(key: account_pb2.ApiKey) -> KeyRecord:
    """Read a key."""
    return KeyRecord(
        key_id=key.key_id,
        account_id=key.account_id,
        account_role=key.account_role,
        allowed_models=frozenset(key.allowed_models),
        rpm_limit=key.rpm_limit if key.HasField("rpm_limit") else None,
        itpm_limit=key.input_tpm_limit if key.HasField("input_tpm_limit") else None,
        otpm_limit=key.output_tpm_limit if key.HasField("output_tpm_limit") else None,
        self_route_only=key.self_route_only,
        expire_time=instant(key.expire_time) if key.HasField("expire_time") else None,
    )


def instant(time: Timestamp) -> datetime:
    """Read a time in UTC."""
    return time.ToDatetime(tzinfo=UTC)


def timestamp(time: datetime) -> Timestamp:
    """Write a time."""
    written = Timestamp()
    written.FromDatetime(time)
    return written


def price(row: PriceRow) -> Price:
    """Read a price row."""
    return Price(
        price_id=row.price_id,
        build=row.build,
        input_micros=row.input_micros,
        output_micros=row.output_micros,
        cache_read_micros=row.cache_read_micros,
        minimum_charge_micros=row.minimum_charge_micros,
    )


def price_row(row: Price) -> PriceRow:
    """Write a price row."""
    return PriceRow(
        price_id=row.price_id,
        build=row.build,
        input_micros=row.input_micros,
        output_micros=row.output_micros,
        cache_read_micros=row.cache_read_micros,
        minimum_charge_micros=row.minimum_charge_micros,
    )


def signed(document: SignedDocument) -> SignedBytes:
    """Read a signed document."""
    return SignedBytes(document.document, document.signature, document.key_id)


def hold_order(order: HoldOrder) -> ledger_pb2.HoldOrder:
    """Write an order."""
    return ledger_pb2.HoldOrder(
        request_id=order.request_id,
        account_id=order.account_id,
        key_id=order.key_id,
        build=order.build,
        prompt_bound=order.prompt_bound,
        output_bound=order.output_bound,
        requested_model=order.requested_model,
        traceparent=order.traceparent,
        fallback_build=order.fallback_build,
    )


def hold_result(result: ledger_pb2.HoldResult) -> Hold | HoldRefusal:
    """Read what became of an order."""
    if result.HasField("hold"):
        return Hold(result.request_id, price(result.hold.price), result.hold.amount_micros)
    name = (
        ErrorReason.Name(result.refusal)
        if result.refusal in ErrorReason.values()
        else "ERROR_REASON_UNSPECIFIED"
    )
    return HoldRefusal(
        name.removeprefix("ERROR_REASON_"), result.required_micros, result.available_micros
    )


def open_message(
    plan: Plan, request_id: str, *, trust_floor: str, deadline: datetime, traceparent: str
) -> gateway_lane_pb2.Open:
    """Write the frame that looks for a provider; of content it knows only sizes."""
    return gateway_lane_pb2.Open(
        request_id=request_id,
        build=plan.build,
        fallback_build=plan.fallback_build,
        traits=gateway_lane_pb2.Traits(
            tools=plan.tools,
            requires_tool_constraint=plan.constrains_tools,
            tool_choice_mode=plan.tool_choice_mode,
            parallel_tool_calls=plan.parallel_tool_calls,
            requires_vision=plan.vision,
            json_schema=plan.json_schema,
        ),
        prompt_tokens_estimate=plan.prompt_estimate,
        prompt_bound=plan.prompt_bound,
        output_bound=plan.output_bound,
        account_id=plan.account_id,
        owner_policy=_POLICIES[plan.route],
        machine=plan.machine,
        deadline_time=timestamp(deadline),
        trust_floor=trust_floor,
        traceparent=traceparent,
        prefix_hint=plan.prefix_hint,
    )


def offer(message: gateway_lane_pb2.Offer) -> Offer:
    """Read an offer."""
    facts = message.provider
    return Offer(
        attempt_id=message.attempt_id,
        stream=message.attempt_stream,
        verdict=signed(message.verdict),
        price=price(message.price) if message.HasField("price") else None,
        build=message.build,
        provider_id=facts.provider_id,
        facts=ProviderFacts(facts.chip_name, facts.machine_model),
        hedge=message.hedge,
        scripted=message.scripted,
    )


def opened(counts: OpenedCounts) -> provider_link_pb2.Opened:
    """Write what was opened."""
    return provider_link_pb2.Opened(
        frames=counts.frames,
        prompt_tokens=counts.prompt_tokens,
        completion_tokens=counts.completion_tokens,
        cached_tokens=counts.cached_tokens,
    )


def document(signed_bytes: SignedBytes) -> SignedDocument:
    """Write a document as it came."""
    return SignedDocument(
        document=signed_bytes.document,
        signature=signed_bytes.signature,
        key_id=signed_bytes.key_id,
    )


def settle_opened(attempt: Carried, terminal: SignedBytes | None) -> gateway_lane_pb2.SettleOpened:
    """Write the last word on an answer whose replica is lost, or may be."""
    offer_made = attempt.offer
    message = gateway_lane_pb2.SettleOpened(
        request_id=attempt.request_id,
        attempt_id=offer_made.attempt_id,
        verdict=document(offer_made.verdict),
        opened=opened(attempt.opened),
        price_id=offer_made.price.price_id if offer_made.price is not None else "",
    )
    if terminal is not None:
        message.terminal.CopyFrom(document(terminal))
    return message


def violation(fault: ViolationFault, counts: OpenedCounts) -> gateway_lane_pb2.Violation:
    """Write what was seen."""
    return gateway_lane_pb2.Violation(kind=_KINDS[fault], opened=opened(counts))


def refusal(message: gateway_lane_pb2.Refused) -> ApiError:
    """Read the router's refusal as the consumer gets it; odd values become 503."""
    status, kind = message.http_status, _word(message.type)
    if status not in _HTTP_ERRORS or not kind:
        return ApiError(503, "service_unavailable", "no provider can serve now", retry_after_s=5)
    return ApiError(
        status,
        kind,
        message.message or "no provider can serve this request",
        code=_word(message.code) or None,
        param="model" if kind == "model_not_found" else None,
        retry_after_s=(seconds(message.retry_after) if message.HasField("retry_after") else None),
    )


def attempt_failure(message: gateway_lane_pb2.AttemptFailed) -> ApiError:
    """Read why an answer broke after commit, in our words."""
    if message.failure == gateway_lane_pb2.ATTEMPT_FAILURE_TIMEOUT:
        return ApiError(504, "provider_error", "the provider timed out")
    if message.failure == gateway_lane_pb2.ATTEMPT_FAILURE_PROVIDER_LOST:
        return provider_failed("the provider was lost")
    if message.failure == gateway_lane_pb2.ATTEMPT_FAILURE_ENCRYPTION_FAILURE:
        return provider_failed("the provider's answer was not authentic")
    return provider_failed()


def seconds(duration: Duration) -> float:
    """Read a span in seconds."""
    return duration.seconds + duration.nanos / 1e9


_INSTALLED = frozenset({catalog_pb2.VERSION_STATE_ACTIVE, catalog_pb2.VERSION_STATE_RETAINED})
"""States of versions whose hash routing accepts."""


def signing_keys(keys: Iterable[SigningKey]) -> dict[str, bytes]:
    """Read public keys by id."""
    return {key.key_id: key.public_key for key in keys}


def catalog(message: catalog_pb2.Catalog) -> Catalog:
    """Read a catalog."""
    return Catalog(
        message.generation,
        {row.id: _build(row) for row in message.builds},
        {
            row.alias_id: Alias(
                row.alias_id,
                row.display_name,
                row.desired_build,
                row.previous_build,
                row.active,
                row.traffic_percent if row.HasField("traffic_percent") else 100,
            )
            for row in message.aliases
        },
        {
            row.alias_id: MarketplaceAlias(
                row.alias_id,
                row.display_name,
                row.source_model,
                row.marketplace_slug,
                row.hugging_face_id,
            )
            for row in message.marketplace_aliases
            if row.active
        },
    )


def _build(row: catalog_pb2.Build) -> Build:
    hashes = {*row.accepted_weight_hashes, *([row.weight_hash] if row.weight_hash else [])}
    return Build(
        build_id=row.id,
        display_name=row.display_name,
        description=row.description,
        quantization=row.quantization,
        model_type=row.model_type or "text",
        hugging_face_id=row.hugging_face_id,
        marketplace_slug=row.marketplace_slug,
        deprecation_date=row.deprecation_date,
        max_context_length=row.max_context_length,
        max_output_length=row.max_output_length,
        capabilities=tuple(row.capabilities),
        accepted_weight_hashes=frozenset(hashes),
        created=row.create_time.seconds,
        install=_install(row) if row.active_version else None,
    )


def _install(row: catalog_pb2.Build) -> Install:
    return Install(
        family=row.family,
        architecture=row.architecture,
        min_ram_gb=row.min_ram_gb,
        required_provider_capabilities=tuple(row.required_provider_capabilities),
        status="active" if row.status == catalog_pb2.BUILD_STATUS_ACTIVE else "beta",
        active_version=row.active_version,
        versions=tuple(
            InstallVersion(
                version=one.version,
                weight_hash=one.aggregate_sha256,
                identity_hash=one.identity_sha256,
                size_bytes=one.total_size_bytes,
                file_count=one.file_count,
                sources=tuple(one.sources),
            )
            for one in row.versions
            if one.state in _INSTALLED
        ),
    )


def _word(text: str) -> str:
    """Return a closed word, or nothing where the text is not one."""
    return text if len(text) <= _MAX_WORD and text.replace("_", "").isalnum() else ""
