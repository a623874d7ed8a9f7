"""What a consumer believes beforehand: keys, out of a file that did not come with the answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import msgspec
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.signatures import from_base64

MAX_FILE_BYTES = 1024 * 1024
_KEY_BYTES = 32


class PinsError(Exception):
    """A file of pins cannot be read."""


class _Key(msgspec.Struct, kw_only=True):
    key_id: str
    public_key: str


class _File(msgspec.Struct, kw_only=True):
    """A saved `GET /v1/receipts/keys`."""

    verdict_keys: list[_Key]
    receipt_keys: list[_Key] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Pins:
    """Public keys by id, each 32 bytes."""

    verdict_keys: Mapping[str, bytes]
    """Attestation's: they sign verdicts."""
    log_keys: Mapping[str, bytes]
    """They sign heads of the transparency log."""
    gateway_keys: Mapping[str, bytes] = field(default_factory=dict)
    """Gateways' receipt keys. Others count once the pinned log covers them: each worker draws its
    own when it starts."""

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a saved `GET /v1/receipts/keys`.

        Keep the file: a copy fetched from the gateway together with the answer proves nothing
        against that gateway.

        Raises:
            PinsError: no such file, or not one of keys.
        """
        try:
            with Path(path).open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise PinsError(f"{path} cannot be read ({error.strerror})") from None

        return cls.parse(data)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the same out of bytes; errors as `load`."""
        if len(data) > MAX_FILE_BYTES:
            raise PinsError(f"a file of keys has at most {MAX_FILE_BYTES} bytes")
        try:
            file = msgspec.json.decode(data, type=_File)
            verdict_keys, gateway_keys = _by_id(file.verdict_keys), _by_id(file.receipt_keys)
        except (msgspec.MsgspecError, MalformedError, UnicodeError, RecursionError):
            raise PinsError("not a file of keys: save GET /v1/receipts/keys") from None
        if not verdict_keys:
            raise PinsError("a file of keys without verdict keys pins nothing")

        # Attestation signs verdicts and heads with the same keys, under different domains.
        return cls(verdict_keys=verdict_keys, log_keys=verdict_keys, gateway_keys=gateway_keys)


def _by_id(keys: list[_Key]) -> dict[str, bytes]:
    found = {key.key_id: from_base64(key.public_key) for key in keys}
    if any(len(key) != _KEY_BYTES for key in found.values()):
        raise MalformedError("a public key has 32 bytes")

    return found
