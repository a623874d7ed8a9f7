"""Callbacks of a management server, matched with what was asked (spec/security.md §7).

A callback counts only for the exact command, device and kind that are outstanding; whoever stores
the outstanding commands consumes one in the same transaction. The secret of the callback travels
in a header, never in the address, where proxies would log it.
"""

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from darkbloom_edge.apple.security_info import (
    MAX_UDID_CHARS,
    MdmFault,
    MdmRejected,
    SecurityInfo,
    parse_acknowledged,
    read_device_attestation,
    read_ids,
    read_security_info,
)
from darkbloom_edge.documents import convert_document
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.signatures import from_base64
from darkbloom_edge.strict_json import parse_json_object

MAX_WEBHOOK_BYTES = 262_144
"""Largest callback that is read; above it the answer is 400."""
COMMAND_TTL = timedelta(minutes=30)
"""How long an answer to a command counts."""
_MAX_PAYLOAD_CHARS = 196_608

Text = Annotated[str, Meta(max_length=1024)]


class RequestType(StrEnum):
    """The only commands that are ever sent; everything else is refused before sending."""

    SECURITY_INFO = "SecurityInfo"
    DEVICE_INFORMATION = "DeviceInformation"


class _Event(msgspec.Struct, frozen=True, kw_only=True):
    udid: Annotated[str, Meta(max_length=MAX_UDID_CHARS)]
    status: Text
    command_uuid: Text | None = None
    raw_payload: Annotated[str, Meta(max_length=_MAX_PAYLOAD_CHARS)]


class _Callback(msgspec.Struct, frozen=True, kw_only=True):
    topic: Text
    acknowledge_event: _Event | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged:
    """An answer of a device, not yet matched with a command."""

    udid: str = field(repr=False)
    command_uuid: str
    answer: dict[str, Any] = field(repr=False)
    """The device's property list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutstandingCommand:
    """What was asked of whom, and for which connection."""

    command_uuid: str
    udid: str = field(repr=False)
    request_type: RequestType
    provider_id: str
    """The session whose posture this decides; a late answer counts for no other."""
    create_time: datetime


def secret_matches(presented: str, expected: str) -> bool:
    """Compare a callback's secret in constant time; call it before the body is read."""
    # Hashing first makes the comparison independent of both lengths.
    given, wanted = (hashlib.sha256(text.encode()).digest() for text in (presented, expected))

    return bool(expected) and hmac.compare_digest(given, wanted)


def read_webhook(body: bytes) -> Acknowledged | None:
    """Read a callback; None when it is none of our business (another topic, not acknowledged).

    Raises:
        MdmRejected: it is malformed, or contradicts itself.
    """
    try:
        fields = parse_json_object(body, max_bytes=MAX_WEBHOOK_BYTES)
        callback = convert_document(fields, _Callback)
    except MalformedError:
        raise MdmRejected(MdmFault.MALFORMED_WEBHOOK) from None
    event = callback.acknowledge_event
    if event is None or event.status != "Acknowledged":
        return None

    try:
        payload = from_base64(event.raw_payload)
    except MalformedError:
        raise MdmRejected(MdmFault.MALFORMED_PAYLOAD) from None
    answer = parse_acknowledged(payload)
    command_uuid, udid = read_ids(answer)
    named = event.command_uuid or command_uuid
    said = (event.udid, named, event.status)
    if said != (udid, command_uuid, answer.get("Status")):
        raise MdmRejected(MdmFault.DEVICE_CONTRADICTION)

    return Acknowledged(udid=udid, command_uuid=command_uuid, answer=answer)


def match_command(
    answered: Acknowledged, outstanding: OutstandingCommand | None, now: datetime
) -> None:
    """Check that an answer belongs to the command that its id names.

    Args:
        answered: the device's answer.
        outstanding: the unconsumed command of that id; None when there is none.
        now: the present, time zone aware.

    Raises:
        MdmRejected: unknown, too old, or of another device.
    """
    if outstanding is None or outstanding.command_uuid != answered.command_uuid:
        raise MdmRejected(MdmFault.COMMAND_UNKNOWN)
    if outstanding.udid != answered.udid:
        raise MdmRejected(MdmFault.DEVICE_MISMATCH)
    if not outstanding.create_time <= now <= outstanding.create_time + COMMAND_TTL:
        raise MdmRejected(MdmFault.COMMAND_EXPIRED)


def security_info_of(
    answered: Acknowledged, outstanding: OutstandingCommand | None, now: datetime
) -> SecurityInfo:
    """Return the posture that answers an outstanding `SecurityInfo`.

    Raises:
        MdmRejected: it answers nothing, or something else.
    """
    match_command(answered, outstanding, now)
    if outstanding is None or outstanding.request_type is not RequestType.SECURITY_INFO:
        raise MdmRejected(MdmFault.WRONG_ANSWER)

    return read_security_info(answered.answer)


def device_attestation_of(
    answered: Acknowledged, outstanding: OutstandingCommand | None, now: datetime
) -> tuple[bytes, ...]:
    """Return the DER chain that answers an outstanding `DeviceInformation`, leaf first.

    Raises:
        MdmRejected: it answers nothing, or something else.
    """
    match_command(answered, outstanding, now)
    if outstanding is None or outstanding.request_type is not RequestType.DEVICE_INFORMATION:
        raise MdmRejected(MdmFault.WRONG_ANSWER)

    return read_device_attestation(answered.answer)
