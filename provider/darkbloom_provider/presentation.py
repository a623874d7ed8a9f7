"""What the agent says of itself, from measured facts: registration, heartbeat, answers."""

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from darkbloom.router.v1.provider_link_pb2 import (
    AttestationChallenge,
    AttestationResponse,
    BackendCapacity,
    CacheStatus,
    CacheStatuses,
    Hardware,
    Heartbeat,
    ModelsUpdate,
    PrivacyCapabilities,
    ProtocolVersion,
    ProviderModel,
    ProviderStats,
    ProviderStatus,
    Register,
    Resume,
    Slot,
    SlotState,
    SystemMetrics,
)
from darkbloom_edge.attestation import (
    Challenge,
    RegistrationBlob,
    StatusReport,
    answer_challenge,
    build_registration,
)
from darkbloom_edge.device_statement import SALT_BYTES
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.public_form import sign_public_form
from darkbloom_edge.signatures import to_base64

from darkbloom_provider.code_release import CodeRelease
from darkbloom_provider.desk import Stats
from darkbloom_provider.device_key import DeviceKey
from darkbloom_provider.engine import interface as engine_interface
from darkbloom_provider.engine.prefix.chain import BLOCK_TOKENS
from darkbloom_provider.hardening import Hardening
from darkbloom_provider.hardware import Hardware as HardwareFacts
from darkbloom_provider.hardware import Load
from darkbloom_provider.isolation import Isolation
from darkbloom_provider.mac.launcher import PushAddress
from darkbloom_provider.mac.posture import Posture

PROTOCOL = ProtocolVersion(major=1, minor=0)
CAPABILITIES = ("sealed_envelope_v1", "cumulative_credit", "terminal_ack", "go_away")
"""Named features of the link that this agent speaks."""

TOOL_CONSTRAINT_PROTOCOL = 1
"""Calls are forced by a grammar."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A verified build and what the catalog needs to know of it."""

    id: str
    size_bytes: int
    model_type: str
    quantization: str
    weight_hash: str
    identity_hash: str
    estimated_memory_gb: float
    template_renders: bool | None = None
    """Whether the chat template rendered every fixture; None where there is no opinion."""
    template_hash: str = ""
    """SHA-256 of the chat template, hex; empty without one."""
    template_fixtures: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of each rendered fixture, hex, by its name; empty where it does not render."""
    constrains_tools: bool = False
    """Whether calls of this build can be forced by a grammar."""
    vision: bool = False
    """Whether images and videos can be answered."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Presence:
    """Everything static that this process can truthfully say."""

    encryption_key: bytes
    signer: DeviceKey
    hardware: HardwareFacts
    hardening: Hardening
    release: CodeRelease
    models: Iterable[Model]
    """What is served at the moment; read anew for each message."""
    backend: str
    name: str
    private_only: bool
    generation: str
    """Random id of this process: equal across streams means the same K."""
    isolation: Callable[[], Isolation]
    """Looks at this process anew for each registration."""

    def register(
        self,
        now: datetime,
        posture: Posture,
        *,
        previous: str,
        inflight: Iterable[str],
        address: PushAddress | None = None,
    ) -> Register:
        """Return the first frame of a stream.

        Args:
            now: goes into the signed blob, which is fresh for two minutes.
            posture: how the machine is protected, just measured.
            previous: provider id of the stream before; empty for none.
            inflight: attempts whose terminals nobody has acknowledged.
            address: where pushes reach this app.
        """
        claims = self._blob(now, posture)
        blob, signature = build_registration(claims, self.signer)
        constrained = [model.id for model in self.models if model.constrains_tools]
        return Register(
            protocol=PROTOCOL,
            capabilities=CAPABILITIES,
            hardware=_hardware(self.hardware),
            models=[_model(model) for model in self.models],
            backend=self.backend,
            version=self.release.version,
            encryption_key=self.encryption_key,
            attestation_blob=blob,
            attestation_signature=signature,
            public_signature=_public_signature(claims, self.signer),
            private_only=self.private_only,
            privacy=self._privacy(posture),
            python_hash=self.release.python_hash,
            runtime_hash=self.release.runtime_hash,
            template_hashes=self.release.template_hashes,
            resume=Resume(
                previous_provider_id=previous,
                process_generation=self.generation,
                inflight_attempts=inflight,
            ),
            tool_constraint_protocol=TOOL_CONSTRAINT_PROTOCOL if constrained else None,
            tool_constraint_models=constrained,
            name=self.name,
            apns_device_token=None if address is None else address.token,
            apns_environment=None if address is None else address.environment,
        )

    def inventory(self) -> ModelsUpdate:
        """Return what is served, after a change."""
        return ModelsUpdate(models=[_model(model) for model in self.models])

    def answer(
        self, challenge: AttestationChallenge, posture: Posture, evidence: bytes = b""
    ) -> AttestationResponse:
        """Sign the status that a challenge asks for, and carry what the app has signed."""
        hashes = {model.id: model.weight_hash for model in self.models}
        status, signature = answer_challenge(
            Challenge(
                nonce=challenge.nonce,
                timestamp=challenge.timestamp,
                provider_id=challenge.provider_id,
            ),
            StatusReport(
                public_key=to_base64(self.encryption_key),
                # What was not measured is not claimed, and off a Mac nothing is.
                sip_enabled=posture.sip_enabled,
                secure_boot_enabled=posture.secure_boot_enabled,
                rdma_disabled=posture.rdma_disabled,
                python_hash=self.release.python_hash,
                runtime_hash=self.release.runtime_hash,
                template_hashes=self.release.template_hashes or None,
                model_hashes=hashes or None,
            ),
            self.signer,
        )
        return AttestationResponse(
            nonce=challenge.nonce,
            status=status,
            status_signature=signature,
            device_evidence=evidence,
        )

    def _blob(self, now: datetime, posture: Posture) -> RegistrationBlob:
        return RegistrationBlob(
            authenticated_root_enabled=posture.authenticated_root_enabled,
            chip_family=self.hardware.chip_family,
            chip_name=self.hardware.chip_name,
            encryption_public_key=to_base64(self.encryption_key),
            hardware_model=self.hardware.machine_model,
            os_version=self.hardware.os_version,
            public_key=to_base64(self.signer.public),
            rdma_disabled=posture.rdma_disabled,
            secure_boot_enabled=posture.secure_boot_enabled,
            secure_enclave_available=self.signer.secure_enclave,
            serial_number=posture.serial_number,
            serial_salt=to_base64(secrets.token_bytes(SALT_BYTES))
            if posture.serial_number
            else None,
            sip_enabled=posture.sip_enabled,
            system_volume_hash=posture.system_volume_hash,
            timestamp=now.isoformat().replace("+00:00", "Z"),
        )

    def _privacy(self, posture: Posture) -> PrivacyCapabilities:
        isolation = self.isolation()
        return PrivacyCapabilities(
            text_backend_inprocess=isolation.text_backend_inprocess,
            text_proxy_disabled=isolation.text_proxy_disabled,
            sip_enabled=posture.sip_enabled,
            anti_debug_enabled=self.hardening.anti_debug_enabled,
            core_dumps_disabled=self.hardening.core_dumps_disabled,
            env_scrubbed=self.hardening.env_scrubbed,
            encrypted_response_chunks=True,
        )


def heartbeat(
    *,
    slots: list[engine_interface.SlotState],
    stats: Stats,
    usage_gaps: int,
    load: Load,
    total_memory_gb: float,
    sequence: int,
    draining: bool,
) -> Heartbeat:
    """Return the live state as one frame; `sequence` rises with each capacity snapshot."""
    busy = any(slot.num_running or slot.num_waiting for slot in slots)
    status = ProviderStatus.PROVIDER_STATUS_IDLE
    if busy:
        status = ProviderStatus.PROVIDER_STATUS_SERVING
    if draining:
        status = ProviderStatus.PROVIDER_STATUS_DRAINING
    running = [slot.model for slot in slots if slot.num_running]
    return Heartbeat(
        status=status,
        active_model=running[0] if running else "",
        stats=ProviderStats(
            requests_served=stats.requests_served,
            tokens_generated=stats.tokens_generated,
            cancellations_received=stats.cancellations_received,
            cancellations_before_output=stats.cancellations_before_output,
            generation_errors_after_output=stats.generation_errors_after_output,
            usage_gaps=usage_gaps,
        ),
        warm_models=[slot.model for slot in slots],
        cache=CacheStatuses(
            statuses=[
                CacheStatus(model_id=slot.model, state=slot.prefix_cache, block_size=BLOCK_TOKENS)
                for slot in slots
                if slot.prefix_cache
            ]
        ),
        system=SystemMetrics(memory_pressure=load.memory_pressure, cpu_usage=load.cpu_usage),
        capacity=BackendCapacity(
            slots=[_slot(slot) for slot in slots],
            total_memory_gb=total_memory_gb,
            capacity_seq=sequence,
        ),
    )


def _public_signature(claims: RegistrationBlob, signer: DeviceKey) -> bytes:
    """Sign what strangers may see; a serial that is none has no form that hides it."""
    try:
        return sign_public_form(claims, signer)
    except MalformedError:
        return b""


def _slot(slot: engine_interface.SlotState) -> Slot:
    return Slot(
        model=slot.model,
        state=SlotState.Value(f"SLOT_STATE_{slot.state.name}"),
        num_running=slot.num_running,
        num_waiting=slot.num_waiting,
        max_concurrency=slot.max_concurrency,
        active_tokens=slot.active_tokens,
        max_tokens_potential=slot.max_tokens_potential,
        active_token_budget_used=slot.active_token_budget_used,
        active_token_budget_max=slot.active_token_budget_max,
        kv_bytes_per_token=slot.kv_bytes_per_token,
        # Zero is "not measured yet", which is another thing than measured as zero.
        observed_decode_tps=slot.observed_decode_tps or None,
        observed_prefill_tps=slot.observed_prefill_tps or None,
        model_load_time_ms=slot.model_load_time_ms or None,
        wedge_suspected=slot.wedge_suspected,
    )


def _model(model: Model) -> ProviderModel:
    return ProviderModel(
        id=model.id,
        size_bytes=model.size_bytes,
        model_type=model.model_type,
        quantization=model.quantization,
        weight_hash=model.weight_hash,
        identity_hash=model.identity_hash,
        estimated_memory_gb=model.estimated_memory_gb,
        template_render_ok=model.template_renders,
        vision=model.vision,
        tool_constraint_template_hash=model.template_hash if model.constrains_tools else "",
        template_fixtures=model.template_fixtures,
    )


def _hardware(facts: HardwareFacts) -> Hardware:
    return Hardware(
        machine_model=facts.machine_model,
        chip_name=facts.chip_name,
        chip_family=facts.chip_family,
        chip_tier=facts.chip_tier,
        memory_gb=facts.memory_gb,
        memory_available_gb=facts.memory_available_gb,
        cpu_cores_total=facts.cpu_cores_total,
        cpu_cores_performance=facts.cpu_cores_performance,
        cpu_cores_efficiency=facts.cpu_cores_efficiency,
        gpu_cores=facts.gpu_cores,
        memory_bandwidth_gbs=facts.memory_bandwidth_gbs,
        os_version=facts.os_version,
    )
