"""The keys that consumers seal requests to: one file, the same for every gateway.

    {"keys": [{"private_key": "<base64, 32 bytes>", "from": "…Z", "until": "…Z"}]}

Every key that has not ended is accepted, also one that has not begun: gateways read a changed file
at slightly different moments. The published key is the one that began last.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import msgspec
from nacl.bindings import crypto_scalarmult_base

from darkbloom_edge.boxes import KEY_BYTES, KeyPair
from darkbloom_edge.documents import Instant, Key32, convert_document, parse_rfc3339, rfc3339
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.sealed_request import key_id
from darkbloom_edge.signatures import from_base64, to_base64
from darkbloom_edge.strict_json import parse_json_object

MAX_FILE_BYTES = 64 * 1024
MAX_KEYS = 16
MIN_GRACE = timedelta(minutes=10)
"""A key page may be cached for 5 minutes, and a request may be 5 more minutes on its way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealingKey:
    """One key and its life."""

    pair: KeyPair = field(repr=False)
    since: datetime
    """When it is published."""
    until: datetime | None
    """When it is no longer accepted; None while no successor is known."""

    @property
    def kid(self) -> str:
        """Its name."""
        return key_id(self.pair.public)


class _Entry(msgspec.Struct, frozen=True, kw_only=True, rename={"since": "from"}):
    private_key: Key32
    since: Instant
    until: Instant | None = None

    def __repr__(self) -> str:
        return "Entry(<redacted>)"


class _File(msgspec.Struct, frozen=True, kw_only=True):
    keys: list[_Entry]


class KeyRing:
    """All keys of a file, looked up by time.

    Args:
        keys: in any order.
    """

    def __init__(self, keys: tuple[SealingKey, ...] = ()) -> None:
        self.keys = tuple(sorted(keys, key=lambda key: key.since))

    def accepted(self, kid: str, now: datetime) -> SealingKey | None:
        """Return the key of that name, unless it has ended."""
        return next((key for key in self._live(now) if key.kid == kid), None)

    def published(self, now: datetime) -> tuple[SealingKey | None, tuple[SealingKey, ...]]:
        """Return the key to seal to, and those before it that are still accepted, newest first."""
        begun = [key for key in self._live(now) if key.since <= now]
        if not begun:
            return None, ()
        return begun[-1], tuple(reversed(begun[:-1]))

    def _live(self, now: datetime) -> list[SealingKey]:
        return [key for key in self.keys if key.until is None or now < key.until]


def make_key(private: bytes, since: datetime) -> SealingKey:
    """Return a key that has no successor yet.

    Raises:
        MalformedError: not 32 bytes.
    """
    if len(private) != KEY_BYTES:
        raise MalformedError(f"a private key has {KEY_BYTES} bytes")
    pair = KeyPair(public=crypto_scalarmult_base(private), private=private)

    return SealingKey(pair=pair, since=since, until=None)


def parse_keys(data: bytes) -> KeyRing:
    """Read a file of keys.

    Raises:
        MalformedError: it is none; the message quotes nothing of it.
    """
    found = convert_document(parse_json_object(data, max_bytes=MAX_FILE_BYTES), _File)
    if not 0 < len(found.keys) <= MAX_KEYS:
        raise MalformedError(f"holds 1 to {MAX_KEYS} keys", "keys")
    keys = tuple(_key_of(entry) for entry in found.keys)
    if len({key.kid for key in keys}) < len(keys):
        raise MalformedError("holds a key twice", "keys")

    return KeyRing(keys)


def encode_keys(ring: KeyRing) -> bytes:
    """Write a file of keys."""
    entries = [
        {
            "private_key": to_base64(key.pair.private),
            "from": rfc3339(key.since),
            **({"until": rfc3339(key.until)} if key.until is not None else {}),
        }
        for key in ring.keys
    ]

    return msgspec.json.format(msgspec.json.encode({"keys": entries}), indent=2) + b"\n"


def rotated(
    ring: KeyRing, private: bytes, now: datetime, *, lead: timedelta, grace: timedelta
) -> KeyRing:
    """Return the keys with a successor; what has ended is forgotten.

    Args:
        ring: the keys so far; none for a first one.
        private: 32 random bytes.
        now: the present.
        lead: until the successor is published; all gateways must have read the file by then.
        grace: for how long after that its predecessors are accepted.

    Raises:
        MalformedError: the grace is too short for whoever has cached the key page, or the key is
            in the file already.
    """
    if grace < MIN_GRACE:
        raise MalformedError(f"is shorter than {MIN_GRACE.total_seconds():.0f} s", "grace")
    begins = now + lead if ring.keys else now
    ends = begins + grace
    kept = [
        SealingKey(pair=key.pair, since=key.since, until=min(key.until or ends, ends))
        for key in ring.keys
        if key.until is None or now < key.until
    ]
    successor = make_key(private, begins)
    if any(key.kid == successor.kid for key in kept):
        raise MalformedError("holds this key already", "keys")

    return KeyRing((*kept, successor))


def new_file(entropy: Callable[[int], bytes], now: datetime) -> bytes:
    """Return a file with one fresh key."""
    return encode_keys(KeyRing((make_key(entropy(KEY_BYTES), now),)))


def _key_of(entry: _Entry) -> SealingKey:
    key = make_key(from_base64(entry.private_key, "private_key"), parse_rfc3339(entry.since))
    until = None if entry.until is None else parse_rfc3339(entry.until)

    return SealingKey(pair=key.pair, since=key.since, until=until)
