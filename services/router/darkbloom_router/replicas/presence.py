"""Providers as replicas tell each other about them: proto to live state and back, pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from darkbloom.router.v1 import peer_lane_pb2
from darkbloom.router.v1.provider_link_pb2 import Heartbeat, ModelsUpdate, Register

from darkbloom_router import convert
from darkbloom_router.model import Admission, ModelFacts, TrustLevel, Verdict
from darkbloom_router.provider import Provider
from darkbloom_router.replicas import fault_words

_SAME_S = 1.0
"""By less two messages about one challenge may differ: they were under way for a while."""


@dataclass(slots=True)
class Said:
    """The last words of a provider, as it said them, and what of them has changed."""

    registration: Register
    inventory: ModelsUpdate
    heartbeat: Heartbeat | None = None
    inventory_round: int = 0
    heartbeat_round: int = 0


def spare(message: Register) -> Register:
    """Return a registration without evidence and delivery addresses: routing reads neither."""
    kept = Register()
    kept.CopyFrom(message)
    kept.ClearField("attestation_blob")
    kept.ClearField("attestation_signature")
    kept.ClearField("public_signature")
    kept.ClearField("apns_device_token")
    return kept


def verdict_message(verdict: Verdict, now: float) -> peer_lane_pb2.VerdictInForce:
    """Return a verdict with the life it has left."""
    return peer_lane_pb2.VerdictInForce(
        document=convert.signed_document(verdict.signed),
        verdict_id=verdict.verdict_id,
        trust_level=verdict.level.word,
        admission=verdict.admission.value,
        expire_in_ms=max(0, int((verdict.expires_at - now) * 1000)),
        expire_time=convert.timestamp(verdict.expires_unix),
    )


def verdict(message: peer_lane_pb2.VerdictInForce, now: float) -> Verdict:
    """Return a verdict on this replica's clock."""
    expires = message.expire_time
    return Verdict(
        verdict_id=message.verdict_id,
        signed=convert.signed(message.document),
        level=TrustLevel.parse(message.trust_level),
        admission=Admission(message.admission)
        if message.admission in {item.value for item in Admission}
        else Admission.NOBODY,
        expires_at=now + message.expire_in_ms / 1000,
        expires_unix=expires.seconds + expires.nanos / 1e9,
    )


def snapshot(
    provider: Provider,
    said: Said,
    now: float,
    *,
    carried: Mapping[str, tuple[int, int]],
    since_round: int,
) -> peer_lane_pb2.ProviderPresence:
    """Return what one asker should know of a provider of ours.

    Args:
        provider: Its live state.
        said: Its last words.
        now: Monotonic seconds.
        carried: Attempts and tokens by build that this asker has reserved itself; left out of the
            loads, because it counts them as its own.
        since_round: Round of the last message to this asker about this provider; -1 is never.
    """
    message = peer_lane_pb2.ProviderPresence(
        provider_id=provider.provider_id,
        epoch=provider.epoch,
        heartbeat_age_ms=int((now - provider.beat_at) * 1000),
        identity_key=provider.identity_key,
        account_id=provider.account_id,
        runtime_verified=provider.runtime_verified,
        untrusted=provider.untrusted,
        draining=provider.draining or provider.drain_fence,
    )
    if since_round < 0:
        message.registration.CopyFrom(said.registration)
    if since_round < 0 or said.inventory_round > since_round:
        message.inventory.CopyFrom(said.inventory)
    if said.heartbeat is not None and said.heartbeat_round > since_round:
        message.heartbeat.CopyFrom(said.heartbeat)
    if provider.verdict is not None:
        message.verdict.CopyFrom(verdict_message(provider.verdict, now))
    if provider.passed_at is not None:
        message.challenge_age_ms = int((now - provider.passed_at) * 1000)
    for build, candidate in provider.candidates.items():
        mine, tokens = carried.get(build, (0, 0))
        inflight = candidate.inflight - mine
        if inflight > 0:
            message.loads.add(
                build=build, inflight=inflight, pending_tokens=candidate.pending_tokens - tokens
            )
    if provider.faults is not None:
        message.faults.CopyFrom(fault_words.write(provider.faults, now))
    return message


def provider(message: peer_lane_pb2.ProviderPresence) -> Provider:
    """Return a provider of another replica as the fleet takes it."""
    register = message.registration
    return Provider(
        provider_id=message.provider_id,
        identity_key=message.identity_key,
        encryption_key=register.encryption_key,
        hardware=convert.hardware(register.hardware),
        privacy=convert.privacy(register.privacy),
        backend=register.backend[: convert.MAX_TEXT],
        version=register.version[: convert.MAX_TEXT],
        private_only=register.private_only,
        constraint_builds=frozenset(register.tool_constraint_models)
        if register.tool_constraint_protocol == 1
        else frozenset(),
        remote=True,
    )


def models(message: peer_lane_pb2.ProviderPresence) -> list[ModelFacts]:
    """Return the builds that a provider has."""
    return [convert.model_facts(item) for item in message.inventory.models[: convert.MAX_MODELS]]


def standing(found: Provider, verdict: Verdict | None) -> tuple[object, ...]:
    """Return what gates read of a mirror that neither heartbeats nor loads move.

    Args:
        found: The mirror.
        verdict: The one in force, or to be.
    """
    return (
        verdict.verdict_id if verdict else "",
        found.passed_at,
        found.account_id,
        found.runtime_verified,
        found.untrusted,
        found.drain_fence,
    )


def apply_state(
    found: Provider, message: peer_lane_pb2.ProviderPresence, now: float
) -> Verdict | None:
    """Write the state of a provider that needs no judgement of the fleet; returns its verdict."""
    found.epoch = message.epoch
    found.account_id = message.account_id
    found.runtime_verified = message.runtime_verified
    found.untrusted = message.untrusted
    found.drain_fence = message.draining
    if not message.HasField("challenge_age_ms"):
        found.passed_at = None
    else:
        passed_at = now - message.challenge_age_ms / 1000
        if found.passed_at is None or abs(passed_at - found.passed_at) > _SAME_S:
            found.passed_at = passed_at
    return verdict(message.verdict, now) if message.HasField("verdict") else None
