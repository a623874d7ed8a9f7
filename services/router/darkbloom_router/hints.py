"""Where a prompt's beginning was read last: a soft hint with a short life (routing section 16).

The keys are opaque: gateways make them from account, build and rendered prefix under a secret that
never comes here. The account is part of the key here once more, so that whatever a gateway sends,
a hint never crosses accounts. A hint is worth a bounded credit and opens no gate.
"""

from collections import OrderedDict
from dataclasses import dataclass

TTL_S = 30.0
MAX_KEYS_PER_REQUEST = 32
KEY_BYTES = 16
MAX_CREDIT_MS = 1000.0
MAX_SHARE = 0.35
_LIMIT = 131_072

Key = tuple[str, str, bytes]


@dataclass(slots=True)
class _Place:
    identity: bytes
    tokens: int
    at: float
    missed: bool = False


@dataclass(frozen=True, slots=True)
class Hint:
    """Who read this prefix last, and what that may be worth."""

    identity: bytes
    tokens: int
    """Prompt tokens that may still be cached there."""
    weight: float
    """1 when just read, 0 when forgotten."""

    def credit_ms(self, prompt_ms: float, price_ms: float) -> float:
        """Return what to subtract from a price: never more than the prompt, a second or 35 %."""
        saved = self.tokens * prompt_ms * self.weight
        return max(0.0, min(saved, MAX_CREDIT_MS, price_ms * MAX_SHARE))


class HintMemory:
    """Last readers of prefixes; bounded, and each forgotten after 30 s."""

    def __init__(self, limit: int = _LIMIT) -> None:
        self._limit = limit
        self._places: OrderedDict[Key, _Place] = OrderedDict()

    def __len__(self) -> int:
        return len(self._places)

    def find(
        self, account_id: str, build: str, keys: tuple[bytes, ...], prompt_tokens: int, now: float
    ) -> Hint | None:
        """Return the reader of the longest prefix that anybody read lately."""
        for key in reversed(keys):
            place = self._places.get((account_id, build, key))
            if place is None or place.missed:
                continue
            age = now - place.at
            if age < TTL_S:
                tokens = min(place.tokens, prompt_tokens)
                return Hint(place.identity, tokens, 1 - age / TTL_S)
        return None

    def note(
        self,
        account_id: str,
        build: str,
        keys: tuple[bytes, ...],
        prompt_tokens: int,
        identity: bytes,
        now: float,
    ) -> None:
        """Remember who read a prompt; each boundary covers its share of the tokens."""
        for index, key in enumerate(keys, start=1):
            entry = (account_id, build, key)
            known = self._places.get(entry)
            if known and known.missed and known.identity == identity and now - known.at < TTL_S:
                continue
            self._places[entry] = _Place(identity, prompt_tokens * index // len(keys), now)
            self._places.move_to_end(entry)
        while len(self._places) > self._limit:
            self._places.popitem(last=False)

    def miss(
        self, account_id: str, build: str, keys: tuple[bytes, ...], identity: bytes, now: float
    ) -> None:
        """Drop what a machine turned out not to have; it is not believed again for 30 s."""
        for key in keys:
            place = self._places.get((account_id, build, key))
            if place is not None and place.identity == identity:
                place.missed, place.at = True, now
