"""App Attest receipts: what Apple's fraud service says about a key.

Any developer may hold a key whose certificate leads to the same root, so the signer's certificate
must carry the mark of receipt signers: the root alone proves nothing (spec/security.md §11).
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Any

from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from darkbloom_edge.apple.authenticator import Environment
from darkbloom_edge.apple.certificates import ChainRules, parse_certificate
from darkbloom_edge.apple.cms import READER_FAILURES, open_signed
from darkbloom_edge.apple.faults import AppleFault, AppleRejected
from darkbloom_edge.apple.roots import AppleRoots

SIGNER_OID = x509.ObjectIdentifier("1.2.840.113635.100.12.15")
"""Mark of a certificate that signs receipts, and nothing else."""

_RULES = ChainRules(leaf_curves=("secp256r1",), purposes=frozenset(), marker=SIGNER_OID)
_MAX_FIELDS = 32
_MAX_TYPE = 1 << 16
_MAX_TEXT = 512
_MAX_RISK = 1 << 31
_TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z")
_NUMBER = re.compile(rb"\d{1,10}")
_ENVIRONMENTS = {"production": Environment.PRODUCTION, "sandbox": Environment.DEVELOPMENT}


class Field(IntEnum):
    """Numbers of the payload's fields."""

    APP_ID = 2
    CERTIFICATE = 3
    CLIENT_HASH = 4
    TOKEN = 5
    TYPE = 6
    ENVIRONMENT = 7
    CREATED = 12
    RISK_METRIC = 17
    NOT_BEFORE = 19
    EXPIRES = 21


_REQUIRED = frozenset(
    (Field.APP_ID, Field.CERTIFICATE, Field.TYPE, Field.ENVIRONMENT, Field.CREATED, Field.EXPIRES)
)


class ReceiptType(StrEnum):
    """How a receipt came to be."""

    ATTEST = "ATTEST"
    """With an attestation."""
    RECEIPT = "RECEIPT"
    """From Apple's server, in exchange for an older one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptPolicy:
    """What a receipt must say, and how old it may be."""

    app_id: str | None
    """`<TeamID>.<bundle id>`; None takes any, for whoever compares a hash instead."""
    environment: Environment = Environment.PRODUCTION
    types: frozenset[ReceiptType] = frozenset(ReceiptType)
    max_age: timedelta | None = timedelta(minutes=5)
    """Longest time since creation; None leaves only Apple's own expiry."""
    max_ahead: timedelta = timedelta(seconds=30)
    """How far Apple's clock may be ahead of ours."""
    max_risk_metric: int | None = None
    """Highest number of attestations of one device in 30 days; None takes any, also none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The payload; times are aware and in UTC."""

    type: ReceiptType
    app_id: str
    environment: Environment
    certificate: bytes
    """Field 3: the leaf or its key, DER."""
    client_hash: bytes | None
    """Field 4; mangled by Apple in receipts of type `RECEIPT`."""
    token: str | None
    created: datetime
    not_before: datetime | None
    """When the next receipt may be asked for."""
    expires: datetime
    risk_metric: int | None
    matches_key: bool | None
    """Whether field 3 is the attested leaf or its key; None if there was none to compare with."""
    client_hash_matches: bool | None
    """Whether field 4 is the challenge; None if there was none to compare with."""


def verify_receipt(
    receipt: bytes,
    *,
    policy: ReceiptPolicy,
    roots: AppleRoots,
    now: datetime,
    leaf: bytes | None = None,
    client_data_hash: bytes | None = None,
) -> Receipt:
    """Check a receipt.

    Args:
        receipt: CMS, as it came.
        policy: app, environment, age.
        roots: the pinned roots.
        now: aware.
        leaf: certificate of the attested key, DER; compared if given.
        client_data_hash: of the attestation; compared if given and the type is `ATTEST`, since
            Apple mangles it in the other.

    Raises:
        AppleRejected: the first thing that is wrong.
    """
    content, _signer = open_signed(receipt, root=roots.receipts, now=now, rules=_RULES)
    read = read_payload(content, leaf, client_data_hash)
    if read.type not in policy.types:
        raise AppleRejected(AppleFault.RECEIPT_TYPE)
    if policy.app_id is not None and read.app_id != policy.app_id:
        raise AppleRejected(AppleFault.RECEIPT_APP_ID)
    if read.environment is not policy.environment:
        raise AppleRejected(AppleFault.RECEIPT_ENVIRONMENT)
    if read.matches_key is False:
        raise AppleRejected(AppleFault.RECEIPT_KEY)
    if read.client_hash_matches is False and read.type is ReceiptType.ATTEST:
        raise AppleRejected(AppleFault.RECEIPT_CLIENT_HASH)
    _check_times(read, policy, now)
    if policy.max_risk_metric is not None and (
        read.risk_metric is None or read.risk_metric > policy.max_risk_metric
    ):
        raise AppleRejected(AppleFault.RECEIPT_RISK_METRIC)

    return read


def _check_times(read: Receipt, policy: ReceiptPolicy, now: datetime) -> None:
    if read.created > now + policy.max_ahead:
        raise AppleRejected(AppleFault.RECEIPT_FROM_FUTURE)
    if read.expires <= now:
        raise AppleRejected(AppleFault.RECEIPT_EXPIRED)
    if policy.max_age is not None and now - read.created > policy.max_age:
        raise AppleRejected(AppleFault.RECEIPT_STALE)


class _Field(core.Sequence):  # type: ignore[misc]  # asn1crypto has no types
    _fields = [("type", core.Integer), ("version", core.Integer), ("value", core.OctetString)]  # noqa: RUF012 - the name and kind that asn1crypto reads


class _Payload(core.SetOf):  # type: ignore[misc]  # asn1crypto has no types
    _child_spec = _Field


def _read_fields(content: bytes) -> dict[int, bytes]:
    fields: dict[int, bytes] = {}
    for item in _Payload.load(content, strict=True):
        number, version, value = (item[name].native for name in ("type", "version", "value"))
        if version != 1 or not 0 < number < _MAX_TYPE or number in fields:
            raise AppleRejected(AppleFault.RECEIPT_MALFORMED, "field")
        if len(fields) == _MAX_FIELDS:
            raise AppleRejected(AppleFault.RECEIPT_MALFORMED, "too many fields")
        fields[number] = value

    return fields


def read_payload(content: bytes, leaf: bytes | None, client_hash: bytes | None) -> Receipt:
    """Read what a receipt says, once its signature has been checked.

    Raises:
        AppleRejected: `receipt_malformed`, or the reason of one field.
    """
    try:
        fields = _read_fields(content)
    except READER_FAILURES:
        raise AppleRejected(AppleFault.RECEIPT_MALFORMED, "payload") from None
    if not fields.keys() >= _REQUIRED:
        raise AppleRejected(AppleFault.RECEIPT_MALFORMED, "a field is missing")

    try:
        kind = ReceiptType(_text(fields[Field.TYPE]))
    except ValueError:
        raise AppleRejected(AppleFault.RECEIPT_TYPE, "unknown") from None
    environment = _ENVIRONMENTS.get(_text(fields[Field.ENVIRONMENT]))
    if environment is None:
        raise AppleRejected(AppleFault.RECEIPT_ENVIRONMENT, "unknown")
    hashed = fields.get(Field.CLIENT_HASH)

    return Receipt(
        type=kind,
        app_id=_text(fields[Field.APP_ID]),
        environment=environment,
        certificate=fields[Field.CERTIFICATE],
        client_hash=hashed,
        token=_text(fields[Field.TOKEN]) if Field.TOKEN in fields else None,
        created=_time(fields[Field.CREATED]),
        not_before=_time(fields[Field.NOT_BEFORE]) if Field.NOT_BEFORE in fields else None,
        expires=_time(fields[Field.EXPIRES]),
        risk_metric=_risk(fields.get(Field.RISK_METRIC)),
        matches_key=None if leaf is None else fields[Field.CERTIFICATE] in _spellings(leaf),
        client_hash_matches=None if client_hash is None else hashed == client_hash,
    )


def _spellings(leaf: bytes) -> tuple[bytes, ...]:
    """Return all that may stand for a key in field 3: the certificate, or the key alone."""
    key: Any = parse_certificate(leaf).public_key()

    return (
        leaf,
        key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
    )


def _text(value: bytes) -> str:
    if not 0 < len(value) <= _MAX_TEXT or not value.isascii():
        raise AppleRejected(AppleFault.RECEIPT_MALFORMED, "text")

    return value.decode("ascii")


def _time(value: bytes) -> datetime:
    """Read RFC 3339 in UTC; Apple drops trailing zeros of the fraction."""
    if _TIME.fullmatch(value) is None:
        raise AppleRejected(AppleFault.RECEIPT_MALFORMED, "time")
    try:
        return datetime.fromisoformat(value.decode("ascii"))
    except ValueError:
        raise AppleRejected(AppleFault.RECEIPT_MALFORMED, "time") from None


def _risk(value: bytes | None) -> int | None:
    if value is None:
        return None
    if _NUMBER.fullmatch(value) is None or int(value) >= _MAX_RISK:
        raise AppleRejected(AppleFault.RECEIPT_RISK_METRIC)

    return int(value)
