"""What the router needs of its neighbours, in its own words. Every call raises `MeshError` only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from darkbloom_router.model import Signed, Verdict

if TYPE_CHECKING:
    from darkbloom_router.settlement import End, Free, Settle


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One measured component that is not blessed."""

    component: str
    expected: str
    got: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """What a provider presented at its registration, exactly as received."""

    provider_id: str
    blob: bytes
    signature: bytes
    encryption_key: bytes
    version: str
    backend: str
    python_hash: str
    runtime_hash: str
    template_hashes: Mapping[str, str]
    owner_account_id: str
    public_signature: bytes = b""
    push_token: str = field(default="", repr=False)
    """Where a push reaches the app; empty where there is none."""
    push_environment: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What attestation found in it."""

    accepted: bool
    trust_level: str
    findings: tuple[str, ...]
    identity_key: bytes
    runtime_verified: bool
    runtime_findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """To be sent to the provider as it is."""

    nonce: str
    timestamp: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What attestation says about an answer."""

    passed: bool
    failure: str
    untrust: bool
    verdict: Verdict | None
    runtime_verified: bool
    runtime_findings: tuple[Finding, ...] = ()
    reasons: tuple[str, ...] = ()
    """Why the level is what it is, closed words, the most important first."""
    code_challenge: bytes = b""
    """Sealed to K, to be passed on; empty where nothing is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strikes:
    """What an unanswered challenge led to."""

    transient_untrust: bool
    close: bool


class Attestation(Protocol):
    """Who judges providers."""

    async def register(self, presented: Presented) -> Registration:
        """Judge a registration; bad evidence is an answer, not an error."""
        ...

    async def challenge(self, provider_id: str) -> Challenge:
        """Make a challenge; NotFoundError where the session is unknown."""
        ...

    async def judge(
        self,
        provider_id: str,
        nonce: str,
        status: bytes,
        signature: bytes,
        hashes: Mapping[str, str],
        evidence: bytes,
    ) -> Judgement:
        """Judge an answer and the device evidence that came with it; each challenge once."""
        ...

    async def code_answered(self, provider_id: str, nonce: bytes, signature: bytes) -> bool:
        """Hand in what the signed app answered; False where it proves nothing."""
        ...

    async def alive(self, provider_ids: Sequence[str]) -> None:
        """Say which streams are alive now."""
        ...

    async def timed_out(self, provider_id: str, nonce: str) -> Strikes:
        """Report that no answer came."""
        ...

    async def report(self, report_id: str, provider_id: str, attempt_id: str, kind: str) -> Signed:
        """Report a broken envelope or a lie; idempotent by report id."""
        ...


class Links(Protocol):
    """Who knows which account a machine earns for."""

    async def account_of(self, identity_key: bytes) -> str:
        """Return the account, empty when the machine is not linked."""
        ...


class Ledger(Protocol):
    """Who moves money. Results come in the order of the request."""

    async def settle(self, orders: Sequence["Settle"]) -> Sequence["End"]:
        """End holds by paying for what was delivered."""
        ...

    async def release(self, orders: Sequence["Free"]) -> Sequence["End"]:
        """End holds without a charge."""
        ...

    async def renew(self, request_ids: Sequence[str], lease_s: float) -> Sequence[str]:
        """Push leases out; returns the requests whose holds have ended."""
        ...
