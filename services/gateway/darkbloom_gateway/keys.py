"""Presented keys and the cache of their records."""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

from darkbloom_gateway.errors import ApiError, unauthenticated
from darkbloom_gateway.model import KeyRecord

MAX_CREDENTIAL_BYTES = 512
"""Longest credential that is looked at."""
PROVIDER_TOKEN_PREFIX = b"eigeninference-pt-"
_SCHEME = b"bearer "


def read_bearer(authorization: bytes | None) -> bytes:
    """Return the hash of the presented API key; the secret itself goes no further.

    Raises:
        ApiError: 401: nothing presented, or a kind of credential that cannot ask for inference.
    """
    if not authorization:
        raise unauthenticated("missing credentials: send Authorization: Bearer <api key>")
    if authorization[: len(_SCHEME)].lower() != _SCHEME:
        raise unauthenticated("only the bearer scheme is supported")
    secret = authorization[len(_SCHEME) :].strip()
    if not secret:
        raise unauthenticated("missing credentials: send Authorization: Bearer <api key>")
    if secret.startswith(b"eyJ"):
        raise unauthenticated("invalid login token")
    if len(secret) > MAX_CREDENTIAL_BYTES or secret.startswith(PROVIDER_TOKEN_PREFIX):
        raise unauthenticated("invalid api key")
    return hashlib.sha256(secret).digest()


@dataclass(frozen=True, slots=True)
class _Entry:
    record: KeyRecord | None
    expires_at: float


class KeyCache:
    """Records by key hash, forgotten after their time or when billing says that they changed.

    A lookup that was under way while its key changed must not fill the cache with what it read
    before: `begin` and `store` compare generations.

    Args:
        ttl_s: life of a record.
        negative_ttl_s: life of "no such key", so that guessing costs billing little.
        max_entries: bound of each of the two kinds.
    """

    def __init__(
        self, ttl_s: float, *, negative_ttl_s: float = 5.0, max_entries: int = 65_536
    ) -> None:
        self._ttl_s = ttl_s
        self._negative_ttl_s = min(negative_ttl_s, ttl_s)
        self._max = max_entries
        self._known: OrderedDict[bytes, _Entry] = OrderedDict()
        self._unknown: OrderedDict[bytes, _Entry] = OrderedDict()
        self._running: dict[bytes, int] = {}
        self.generation = 0

    def __len__(self) -> int:
        return len(self._known) + len(self._unknown)

    def get(self, key_hash: bytes, now: float) -> KeyRecord | ApiError | None:
        """Return the record, the cached refusal, or None where nothing is known."""
        entry = self._known.get(key_hash) or self._unknown.get(key_hash)
        if entry is None:
            return None
        if entry.expires_at <= now:
            self._forget(key_hash)
            return None
        return unauthenticated("invalid api key") if entry.record is None else entry.record

    def begin(self, key_hash: bytes) -> None:
        """Note that a lookup starts."""
        self._running.setdefault(key_hash, 0)

    def store(
        self, key_hash: bytes, record: KeyRecord | None, *, generation: int | None, now: float
    ) -> None:
        """Keep the result of a lookup unless the key changed after it was read.

        Args:
            key_hash: which key.
            record: None for an unknown or revoked key.
            generation: the generation at which billing read it; None where it did not say.
            now: monotonic seconds.
        """
        changed_at = self._running.pop(key_hash, 0)
        if changed_at and (generation is None or generation < changed_at):
            return
        shelf = self._unknown if record is None else self._known
        shelf[key_hash] = _Entry(
            record, now + (self._negative_ttl_s if record is None else self._ttl_s)
        )
        while len(shelf) > self._max:
            shelf.popitem(last=False)

    def abandon(self, key_hash: bytes) -> None:
        """Note that a lookup ended without a result."""
        self._running.pop(key_hash, None)

    def changed(self, key_hash: bytes, generation: int) -> None:
        """Forget a key that billing says has changed."""
        self._forget(key_hash)
        if key_hash in self._running:
            self._running[key_hash] = generation
        self.generation = max(self.generation, generation)

    def reset(self, generation: int) -> None:
        """Forget everything: events may have been missed."""
        self._known.clear()
        self._unknown.clear()
        self._running = dict.fromkeys(self._running, generation)
        self.generation = generation

    def _forget(self, key_hash: bytes) -> None:
        self._known.pop(key_hash, None)
        self._unknown.pop(key_hash, None)
