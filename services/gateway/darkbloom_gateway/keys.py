"""Presented credentials and the cache of whom they stand for."""

import hashlib
import hmac
from collections import OrderedDict
from dataclasses import dataclass, field
from enum import StrEnum

from darkbloom_gateway.errors import unauthenticated
from darkbloom_gateway.model import Caller, Refusal

MAX_SECRET_BYTES = 512
"""Longest key or provider token that is looked at."""
MAX_LOGIN_BYTES = 8192
"""Longest login token that is looked at."""
PROVIDER_TOKEN_PREFIXES = (b"dbp-", b"eigeninference-pt-")
_LOGIN_PREFIX = b"eyJ"
_SCHEME = b"bearer "


class Kind(StrEnum):
    """What a credential looks like; whether it is one is for billing to say."""

    LOGIN = "login"
    ADMIN_KEY = "admin_key"
    API_KEY = "api_key"
    PROVIDER_TOKEN = "provider_token"  # noqa: S105 - the name of a kind


@dataclass(frozen=True, slots=True)
class Credential:
    """A presented secret; only a login token itself goes further, all else is its hash."""

    kind: Kind
    hash: bytes
    login: str = field(default="", repr=False)


def read_bearer(authorization: bytes | None, admin_hash: bytes | None = None) -> Credential:
    """Return the presented credential.

    Args:
        authorization: the header's value.
        admin_hash: SHA-256 of the operator's key; compared in constant time.

    Raises:
        ApiError: 401: nothing presented, or nothing that could be a credential.
    """
    if not authorization:
        raise unauthenticated("missing credentials: send Authorization: Bearer <api key>")
    if authorization[: len(_SCHEME)].lower() != _SCHEME:
        raise unauthenticated("only the bearer scheme is supported")
    secret = authorization[len(_SCHEME) :].strip()
    if not secret:
        raise unauthenticated("missing credentials: send Authorization: Bearer <api key>")

    if secret.startswith(_LOGIN_PREFIX):
        if len(secret) > MAX_LOGIN_BYTES or not secret.isascii():
            raise unauthenticated("invalid login token")
        return Credential(Kind.LOGIN, hashlib.sha256(secret).digest(), secret.decode("ascii"))
    if len(secret) > MAX_SECRET_BYTES:
        raise unauthenticated("invalid api key")
    hashed = hashlib.sha256(secret).digest()
    if admin_hash is not None and hmac.compare_digest(hashed, admin_hash):
        return Credential(Kind.ADMIN_KEY, hashed)
    if secret.startswith(PROVIDER_TOKEN_PREFIXES):
        return Credential(Kind.PROVIDER_TOKEN, hashed)
    return Credential(Kind.API_KEY, hashed)


@dataclass(frozen=True, slots=True)
class _Entry:
    found: Caller | Refusal
    expires_at: float


class KeyCache:
    """Callers by credential hash, forgotten after their time or when billing says they changed.

    A lookup that was under way while its key changed must not fill the cache with what it read
    before: `begin` and `store` compare generations.

    Args:
        ttl_s: life of a record.
        negative_ttl_s: life of a refusal, so that guessing costs billing little.
        max_entries: bound of each of the two kinds.
    """

    def __init__(
        self, ttl_s: float, *, negative_ttl_s: float = 5.0, max_entries: int = 65_536
    ) -> None:
        self._ttl_s = ttl_s
        self._negative_ttl_s = min(negative_ttl_s, ttl_s)
        self._max = max_entries
        self._known: OrderedDict[bytes, _Entry] = OrderedDict()
        self._refused: OrderedDict[bytes, _Entry] = OrderedDict()
        self._running: dict[bytes, int] = {}
        self.generation = 0

    def __len__(self) -> int:
        return len(self._known) + len(self._refused)

    def get(self, key_hash: bytes, now: float) -> Caller | Refusal | None:
        """Return the caller, the cached refusal, or None where nothing is known."""
        entry = self._known.get(key_hash) or self._refused.get(key_hash)
        if entry is None:
            return None
        if entry.expires_at <= now:
            self._forget(key_hash)
            return None
        return entry.found

    def begin(self, key_hash: bytes) -> None:
        """Note that a lookup starts."""
        self._running.setdefault(key_hash, 0)

    def store(
        self,
        key_hash: bytes,
        found: Caller | Refusal,
        *,
        generation: int | None,
        now: float,
        life_s: float | None = None,
    ) -> None:
        """Keep the result of a lookup unless the key changed after it was read.

        Args:
            key_hash: which credential.
            found: whom it stands for, or the refusal.
            generation: the generation at which billing read it; None where it did not say.
            now: monotonic seconds.
            life_s: its own remaining life, where it has one.
        """
        changed_at = self._running.pop(key_hash, 0)
        if changed_at and (generation is None or generation < changed_at):
            return
        refused = isinstance(found, Refusal)
        shelf = self._refused if refused else self._known
        ttl_s = self._negative_ttl_s if refused else self._ttl_s
        if life_s is not None:
            ttl_s = min(ttl_s, life_s)
        shelf[key_hash] = _Entry(found, now + ttl_s)
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

    def account_changed(self, account_id: str, generation: int) -> None:
        """Forget every credential of an account, and what is being looked up meanwhile."""
        gone = [
            key_hash
            for key_hash, entry in self._known.items()
            if isinstance(entry.found, Caller) and entry.found.account_id == account_id
        ]
        for key_hash in gone:
            del self._known[key_hash]
        # A refusal does not say whose it was.
        self._refused.clear()
        self._running = dict.fromkeys(self._running, generation)
        self.generation = max(self.generation, generation)

    def reset(self, generation: int) -> None:
        """Forget everything: events may have been missed."""
        self._known.clear()
        self._refused.clear()
        self._running = dict.fromkeys(self._running, generation)
        self.generation = generation

    def _forget(self, key_hash: bytes) -> None:
        self._known.pop(key_hash, None)
        self._refused.pop(key_hash, None)
