"""Public keys of a signer: pinned ones, and those that attestation lists, kept and refreshed."""

from collections.abc import Iterable, Mapping

import structlog
from darkbloom_edge.signatures import ed25519_key_id
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError

from darkbloom_billing.errors import KeysUnavailableError
from darkbloom_billing.model import SigningKey
from darkbloom_billing.ports import KeySource

_MISS_PERIOD_S = 1.0
_log = structlog.get_logger()


class KeyRing:
    """Keys by id. A key once seen is kept: what it signed before it retired stays valid.

    Args:
        source: Where keys are listed.
        clock: Time.
        pinned: Public keys that count whatever the source says, 32 bytes each.
        name: Word for the log.
    """

    def __init__(
        self, source: KeySource, clock: Clock, *, pinned: Iterable[bytes] = (), name: str
    ) -> None:
        self._source = source
        self._clock = clock
        self._name = name
        self._pinned = {
            ed25519_key_id(public): SigningKey(
                key_id=ed25519_key_id(public), public=public, retired_at=None
            )
            for public in pinned
        }
        self._keys: dict[str, SigningKey] = dict(self._pinned)
        self._asked_at = float("-inf")
        self._answered = False

    async def knowing(self, key_ids: Iterable[str]) -> Mapping[str, SigningKey]:
        """Return all keys, after asking the source about ids that are not known here.

        Strangers' ids cannot make us ask more than once a second.

        Raises:
            KeysUnavailableError: An id is unknown and the source does not answer, so nobody can
                tell whether it is a key.
        """
        if all(key_id in self._keys for key_id in key_ids):
            return self._keys
        if not self._answered or self._clock.monotonic() - self._asked_at >= _MISS_PERIOD_S:
            await self.refresh()
        if not self._answered and any(key_id not in self._keys for key_id in key_ids):
            raise KeysUnavailableError(f"{self._name} keys cannot be read now")
        return self._keys

    async def refresh(self) -> None:
        """Ask the source; failures keep what is known."""
        self._asked_at = self._clock.monotonic()
        try:
            fetched = await self._source.fetch()
        except MeshError as error:
            self._answered = False
            _log.warning("keys_not_refreshed", keys=self._name, reason=error.reason_name)
            return
        self._answered = True
        self._keys = {**self._keys, **fetched, **self._pinned}

    async def run(self, period_s: float) -> None:
        """Refresh for ever, so that a retirement is noticed."""
        while True:
            await self._clock.sleep(period_s)
            await self.refresh()
