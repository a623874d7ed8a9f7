"""The file of `verify-app-attest`: a published App Attest sample, schema version 1."""

from datetime import datetime
from typing import Annotated, Literal

from darkbloom_edge.apple import Environment, ReceiptType
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.signatures import from_base64
from msgspec import Meta, Struct

from darkbloom_attestation.cli.files import FileFault, FileRejected

Base64 = Annotated[str, Meta(pattern=r"^[A-Za-z0-9+/]+={0,2}\Z")]
Time = Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,3})?Z\Z")]


class _Strict(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every member is required, and there is no other."""


class AlsoIn(_Strict, frozen=True, kw_only=True):
    """Where else the sample is."""

    repository: str
    commit: str
    path: str


class Source(_Strict, frozen=True, kw_only=True):
    """Who published the sample."""

    repository: str
    commit: Annotated[str, Meta(pattern=r"^[0-9a-f]{40}\Z")]
    paths: Annotated[list[str], Meta(min_length=1)]
    licence: str
    case: str = ""
    also_in: list[AlsoIn] = []


class Leaf(_Strict, frozen=True, kw_only=True):
    """The first certificate."""

    not_before: Time
    not_after: Time
    serial: str


class AssertionSample(_Strict, frozen=True, kw_only=True):
    """An assertion of the attested key."""

    assertion: Base64
    client_data: Base64
    client_data_hash: Base64
    counter: Annotated[int, Meta(ge=1)]
    flags: int


class ReceiptSample(_Strict, frozen=True, kw_only=True):
    """A receipt about the attested key, and what its payload says."""

    origin: Literal["attestation", "published"]
    receipt: Base64 | None
    type: ReceiptType
    app_id: str
    environment: Literal["production", "sandbox"]
    created: Time
    not_before: Time | None
    expires: Time
    risk_metric: int | None
    token: str
    client_hash: Base64
    client_hash_matches: bool
    certificate_matches_leaf: bool


class Expected(_Strict, frozen=True, kw_only=True):
    """What the sample's publisher expects to be read."""

    result: Literal["valid", "invalid"]
    environment: Environment
    counter: int
    public_key: Base64
    nonce: Base64
    flags: int
    aaguid: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
    x5c_count: int
    access_control_extension: bool
    trailing_authenticator_bytes: int


class AppAttestFile(_Strict, frozen=True, kw_only=True):
    """One sample."""

    schema: Literal[1]
    id: str
    description: str
    source: Source
    os: str | None
    app_id: str | None
    app_id_hash: Base64
    environment: Environment
    key_id: Base64
    attestation: Base64
    client_data: Base64
    client_data_hash: Base64
    client_data_hash_rule: str
    leaf: Leaf
    verify_at: Time
    assertion: AssertionSample | None
    receipts: Annotated[list[ReceiptSample], Meta(min_length=1)]
    expected: Expected


def raw(text: str, member: str) -> bytes:
    """Return the bytes of a member in base64.

    Raises:
        FileRejected: `malformed_file`.
    """
    try:
        return from_base64(text)
    except MalformedError as error:
        raise FileRejected(FileFault.MALFORMED_FILE, f"{member}: {error.what}") from None


def time(text: str, member: str) -> datetime:
    """Return the time of a member, aware and in UTC.

    Raises:
        FileRejected: `malformed_file`.
    """
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise FileRejected(FileFault.MALFORMED_FILE, f"{member}: no such time") from None


def agree(member: str, declared: object, found: object) -> None:
    """Compare what the file declares with what the evidence says.

    Raises:
        FileRejected: `declared_mismatch`.
    """
    if declared != found:
        raise FileRejected(FileFault.DECLARED_MISMATCH, member)
