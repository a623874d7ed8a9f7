"""The words of sign-in and device login as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from darkbloom_billing.model import ApiKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """An OpenID provider that we trust, and exactly for what."""

    issuer: str
    """Equals the `iss` claim, byte for byte."""
    audience: str
    """One of the `aud` claim."""
    jwks_url: str
    algorithms: frozenset[str]
    """Pinned: a subset of `oidc.ALGORITHMS`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a verified token says about a person."""

    issuer: str
    subject: str
    email: str = field(default="", repr=False)
    email_verified: bool = False
    name: str = field(default="", repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A person who has signed in."""

    user_id: str
    account_id: str
    account_role: str
    email: str = field(repr=False)
    email_verified: bool
    display_name: str = field(repr=False)
    closing: bool
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """A user behind a verified token."""

    user: User
    admin: bool
    expires_at: datetime
    generation: int
    """Of key changes, read before the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyView:
    """A key as its owner sees it."""

    key: ApiKey
    usage_micros: int
    """Settled in the present window of its limit, or in its life."""
    remaining_micros: int | None
    """None: no limit."""
    used_at: datetime | None


KeyValue = str | int | bool | datetime | tuple[str, ...] | None
KeyPatch = Mapping[str, KeyValue]
"""New values by the name of the field; None clears it, a name that is absent keeps it."""


class CodeState(StrEnum):
    """Where a device code is in its life."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    CONSUMED = "consumed"


class Verdict(StrEnum):
    """What the store says about a code that somebody presents."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    EXPIRED = "expired"
    USED = "used"
    EARLY = "early"
    SLOW_DOWN = "slow_down"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDeviceCode:
    """Both codes, for the machine that began."""

    device_code: str = field(repr=False)
    user_code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """What became of one poll."""

    verdict: Verdict
    state: CodeState = CodeState.PENDING
    account_id: str = ""
    token: str = field(default="", repr=False)
    wait_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TypedCode:
    """What is known of a code that an owner has typed."""

    verdict: Verdict
    machine_name: str = ""
    state: CodeState = CodeState.PENDING
    created_at: datetime | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderToken:
    """A provider's credential without its secret."""

    token_id: str
    account_id: str
    label: str
    machine_name: str
    created_at: datetime
    closing: bool = False
    """Its account is being deleted."""
