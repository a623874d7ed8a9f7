"""`verify-mda`: a chain of Managed Device Attestation."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from darkbloom_edge.apple import (
    AppleFault,
    AppleRejected,
    AppleRoots,
    DeviceAttestation,
    MdaPolicy,
    apple_roots,
    key_freshness,
    read_mda_leaf,
    token_freshness,
    verify_mda,
)
from darkbloom_edge.errors import EdgeError
from msgspec import Meta, Struct

from darkbloom_attestation.cli.app_attest_file import Base64, Time, raw, time
from darkbloom_attestation.cli.files import (
    FileFault,
    FileRejected,
    accepted,
    read_file,
    refused,
)


class MdaFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A chain, and what it must be bound to: exactly one of key, token and freshness value."""

    schema: Literal[1]
    certificates: Annotated[list[Base64], Meta(max_length=4)]
    """DER, leaf first."""
    verify_at: Time
    identity_key: Base64 | None = None
    """The Secure Enclave key, 64 or 65 bytes: the freshness value is made of its text."""
    token: str | None = None
    """The token of an ACME challenge."""
    freshness: Base64 | None = None
    """The freshness value itself, 32 bytes."""
    serial: str | None = None
    udid: str | None = None


class LeafFile(Struct, frozen=True, kw_only=True):
    """A published sample that has only the leaf; its other members are not read."""

    schema: Literal[1]
    certificate: Base64


def verify_mda_file(
    file: Annotated[Path, typer.Argument(help="JSON with certificates, verify_at and a binding.")],
    *,
    parse_only: Annotated[
        bool, typer.Option("--parse-only", help="Read a lone leaf; it proves nothing.")
    ] = False,
) -> None:
    """Verify a chain offline, and read what it says about the Mac.

    Prints `result`, `reason` and the posture; never the serial number or the UDID. The exit code
    is 0 where all of it holds.
    """
    try:
        device = _read_only(file) if parse_only else _verify(file, apple_roots())
    except EdgeError as error:
        refused(error)
    accepted(result="parsed" if parse_only else "valid", **_facts(device))


def _verify(file: Path, roots: AppleRoots) -> DeviceAttestation:
    try:
        found = read_file(file, MdaFile)
    except FileRejected:
        read_file(file, LeafFile)
        raise AppleRejected(AppleFault.CHAIN_LENGTH, "a lone leaf; see --parse-only") from None

    return check_chain(found, roots=roots)


def check_chain(found: MdaFile, *, roots: AppleRoots) -> DeviceAttestation:
    """Check the chain of a file.

    Raises:
        AppleRejected: the chain is refused.
        FileRejected: the file binds the chain to nothing, or to more than one thing.
        MalformedError: the identity key is none.
    """
    return verify_mda(
        [raw(item, f"certificates[{at}]") for at, item in enumerate(found.certificates)],
        policy=MdaPolicy(freshness=_freshness(found), serial=found.serial, udid=found.udid),
        roots=roots,
        now=time(found.verify_at, "verify_at"),
    )


def _freshness(found: MdaFile) -> frozenset[bytes]:
    given = [item for item in (found.identity_key, found.token, found.freshness) if item]
    if len(given) != 1:
        raise FileRejected(
            FileFault.MALFORMED_FILE, "needs one of identity_key, token and freshness"
        )
    if found.identity_key is not None:
        return key_freshness(found.identity_key)
    if found.token is not None:
        return token_freshness(found.token)

    return frozenset((raw(given[0], "freshness"),))


def _read_only(file: Path) -> DeviceAttestation:
    return read_mda_leaf(raw(read_file(file, LeafFile).certificate, "certificate"))


def _facts(device: DeviceAttestation) -> dict[str, Any]:
    return {
        "os_version": device.os_version,
        "sepos_version": device.sepos_version,
        "llb_version": device.llb_version,
        "sip_enabled": device.sip_enabled,
        "secure_boot": device.secure_boot,
        "kernel_extensions_allowed": device.kernel_extensions_allowed,
        "not_after": device.not_after,
    }
