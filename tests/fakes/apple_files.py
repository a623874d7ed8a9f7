"""Files of the `verify-…` commands, written about what a throw-away Apple has minted."""

import base64
import copy
import hashlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from darkbloom_edge.apple import Environment
from darkbloom_edge.apple.authenticator import AAGUIDS

from tests.fakes.apple_ca import NOW
from tests.fakes.apple_service import AppleService, MintedKey

APP = "TEAMID1234.io.darkbloom.provider"


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def at(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def app_attest_file(apple: AppleService, **changes: Any) -> dict[str, Any]:
    """Return a sample with an assertion and one receipt of each origin."""
    data = b"what the app was given"
    given = {"client_data_hash": hashlib.sha256(data).digest(), "mac": False, **changes}
    minted = apple.attest(APP, **given)
    said = b"what the app has said"
    leaf = minted.chain[0]
    fields = apple.receipt_fields(
        APP,
        leaf,
        b"\xef\xbf\xbd",
        kind="RECEIPT",
        environment=minted.environment,
        created=NOW + timedelta(hours=1),
        risk_metric=2,
    )
    return {
        "schema": 1,
        "id": "minted",
        "description": "made by tests",
        "source": {
            "repository": "none",
            "commit": "0" * 40,
            "paths": ["none"],
            "licence": "none",
        },
        "os": None,
        "app_id": APP,
        "app_id_hash": text(hashlib.sha256(APP.encode()).digest()),
        "environment": minted.environment.value,
        "key_id": minted.key_id,
        "attestation": text(minted.attestation),
        "client_data": text(data),
        "client_data_hash": text(given["client_data_hash"]),
        "client_data_hash_rule": "client_data_hash = SHA-256(client_data)",
        "leaf": {
            "not_before": at(leaf.not_valid_before_utc),
            "not_after": at(leaf.not_valid_after_utc),
            "serial": f"{leaf.serial_number:x}",
        },
        "verify_at": at(NOW),
        "assertion": {
            "assertion": text(minted.assertion(hashlib.sha256(said).digest(), counter=3)),
            "client_data": text(said),
            "client_data_hash": text(hashlib.sha256(said).digest()),
            "counter": 3,
            "flags": 0,
        },
        "receipts": [
            _receipt(minted, given["client_data_hash"]),
            _receipt(minted, fields[4], fields=fields, receipt=apple.receipt(fields)),
        ],
        "expected": _expected(minted),
    }


def _receipt(
    minted: MintedKey,
    client_hash: bytes,
    *,
    fields: dict[int, bytes] | None = None,
    receipt: bytes | None = None,
) -> dict[str, Any]:
    created = NOW if fields is None else NOW + timedelta(hours=1)
    development = minted.environment is Environment.DEVELOPMENT
    return {
        "origin": "attestation" if receipt is None else "published",
        "receipt": None if receipt is None else text(receipt),
        "type": "ATTEST" if fields is None else "RECEIPT",
        "app_id": APP,
        "environment": "sandbox" if development else "production",
        "created": at(created),
        "not_before": None if fields is None else at(created + timedelta(days=1)),
        "expires": at(created + timedelta(days=90)),
        "risk_metric": None if fields is None else 2,
        "token": "dG9rZW4=",
        "client_hash": text(client_hash),
        "client_hash_matches": fields is None,
        "certificate_matches_leaf": True,
    }


def _expected(minted: MintedKey) -> dict[str, Any]:
    nonce = hashlib.sha256(minted.authenticator_data + minted.client_data_hash).digest()
    aaguid = next(raw for raw, place in AAGUIDS.items() if place is minted.environment)
    oids = {extension.oid for extension in minted.chain[0].extensions}
    return {
        "result": "valid",
        "environment": minted.environment.value,
        "counter": 0,
        "public_key": text(minted.public_key),
        "nonce": text(nonce),
        "flags": minted.authenticator_data[32],
        "aaguid": aaguid.hex(),
        "x5c_count": len(minted.chain),
        "access_control_extension": x509.ObjectIdentifier("1.2.840.113635.100.8.6") in oids,
        "trailing_authenticator_bytes": 0,
    }


def members(found: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a document."""
    if isinstance(found, dict):
        for name, value in found.items():
            yield from members(value, (*path, name))
    elif isinstance(found, list):
        for index, value in enumerate(found):
            yield from members(value, (*path, index))
    else:
        yield path


def changed(found: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """Return a copy with one value replaced."""
    twin = copy.deepcopy(found)
    place = twin
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return twin


def value_at(found: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        found = found[step]
    return found
