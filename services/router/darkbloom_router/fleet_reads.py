"""What others may see of the live fleet."""

from collections.abc import Sequence

from darkbloom.router.v1 import fleet_pb2, provider_link_pb2

from darkbloom_router import convert
from darkbloom_router.dispatch import Dispatcher
from darkbloom_router.errors import ProviderUnknownError
from darkbloom_router.explaining import explain, explain_all
from darkbloom_router.fleet import Fleet
from darkbloom_router.model import TrustLevel
from darkbloom_router.provider import Provider
from darkbloom_router.timers import Timers

_DEFAULT_PAGE, _MAX_PAGE = 100, 1000


class FleetReads:
    """Answers from memory; no serial and no push token leave the router."""

    def __init__(
        self, fleet: Fleet, dispatcher: Dispatcher, timers: Timers, unix_offset_s: float
    ) -> None:
        self._fleet = fleet
        self._dispatcher = dispatcher
        self._timers = timers
        self._unix_offset_s = unix_offset_s

    def providers(
        self, page_size: int, page_token: str, *, public_only: bool
    ) -> tuple[list[fleet_pb2.Provider], str]:
        """Return providers after the token, ordered by id, and the next token."""
        size = min(page_size, _MAX_PAGE) if page_size > 0 else _DEFAULT_PAGE
        names = sorted(
            name
            for name, provider in self._fleet.providers.items()
            if name > page_token and not (public_only and provider.private_only)
        )
        page = names[:size]
        token = page[-1] if len(names) > size else ""
        return [self._provider(self._fleet.providers[name]) for name in page], token

    def explain(
        self, name: str, identity_key: bytes, build: str, trust_floor: str
    ) -> list[fleet_pb2.Explanation]:
        """Return the first shut gate for one build, or for all that the provider serves.

        Raises:
            ProviderUnknownError: It is not connected here.
        """
        provider = self._fleet.find(name, identity_key)
        if provider is None:
            raise ProviderUnknownError("provider is not connected to this replica")
        floor = TrustLevel.parse_floor(trust_floor) if trust_floor else self._fleet.rules.min_trust
        now = self._timers.now()
        if build:
            found = [explain(self._fleet, provider, build, now, floor)]
        else:
            found = explain_all(self._fleet, provider, now, floor)
        return [convert.explanation(item) for item in found]

    def capacity(self, builds: Sequence[str]) -> list[fleet_pb2.BuildCapacity]:
        """Return live capacity of the named builds, or of the whole catalog."""
        now, line = self._timers.now(), self._dispatcher.line
        return [
            convert.build_capacity(self._fleet.capacity(build, now), line.depth(build))
            for build in (builds or sorted(self._fleet.builds()))
        ]

    def _provider(self, provider: Provider) -> fleet_pb2.Provider:
        message = fleet_pb2.Provider(
            provider_id=provider.provider_id,
            hardware=provider_link_pb2.Hardware(
                machine_model=provider.hardware.machine_model,
                chip_name=provider.hardware.chip_name,
                chip_family=provider.hardware.chip_family,
                memory_gb=provider.hardware.memory_gb,
                memory_bandwidth_gbs=provider.hardware.memory_bandwidth_gbs,
            ),
            models=[
                provider_link_pb2.ProviderModel(
                    id=name,
                    weight_hash=candidate.facts.weight_hash,
                    size_bytes=candidate.facts.size_bytes,
                    vision=candidate.facts.vision,
                )
                for name, candidate in sorted(provider.candidates.items())
            ],
            trust_level=provider.level.word,
            status=provider.status,
            admission=provider.admission.value,
            identity_key=provider.identity_key,
            encryption_key=provider.encryption_key,
            version=provider.version,
            backend=provider.backend,
            private_only=provider.private_only,
            linked=bool(provider.account_id),
            privacy=provider_link_pb2.PrivacyCapabilities(
                text_backend_inprocess=provider.privacy.inprocess,
                encrypted_response_chunks=provider.privacy.sealed_chunks,
                sip_enabled=provider.privacy.sip,
            ),
            connect_time=convert.timestamp(provider.joined_at + self._unix_offset_s),
            last_heartbeat_time=convert.timestamp(provider.beat_at + self._unix_offset_s),
        )
        if provider.passed_at is not None:
            message.last_challenge_time.CopyFrom(
                convert.timestamp(provider.passed_at + self._unix_offset_s)
            )
        if provider.verdict is not None:
            message.verdict.CopyFrom(convert.signed_document(provider.verdict.signed))
        if provider.capacity is not None:
            message.slots.extend(
                provider_link_pb2.Slot(
                    model=slot.build,
                    state=provider_link_pb2.SlotState.ValueType(int(slot.state)),
                    num_running=slot.running,
                    num_waiting=slot.waiting,
                    max_concurrency=slot.max_concurrency,
                    active_token_budget_used=slot.budget_used,
                    active_token_budget_max=slot.budget_max,
                )
                for slot in provider.capacity.slots.values()
            )
        return message
