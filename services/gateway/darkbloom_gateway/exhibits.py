"""What attestation publishes of sessions, kept for a moment so that nobody can flood it."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias, final

from darkbloom.attestation.v1.attestation_service_pb2 import ProviderEvidence
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError

Read: TypeAlias = Callable[[Sequence[str]], Awaitable[Sequence[ProviderEvidence]]]

FRESH_S = 10.0
"""How long evidence is shown without asking again."""
STALE_S = 600.0
"""How long it may stand in while attestation is away."""
MAX_KEPT = 4096
"""Sessions that are kept; the ones looked at longest ago go first."""
_BATCH = 100


@final
class Exhibits:
    """Public evidence by session.

    Args:
        read: asks attestation, for at most 100 sessions; raises `MeshError`.
        clock: time.
    """

    def __init__(self, read: Read, clock: Clock) -> None:
        self._read = read
        self._clock = clock
        self._lock = asyncio.Lock()
        self._kept: OrderedDict[str, tuple[ProviderEvidence, float]] = OrderedDict()

    async def of(self, provider_ids: Sequence[str]) -> Mapping[str, ProviderEvidence | None]:
        """Return what is known of sessions.

        Returns:
            Evidence by provider id. None: attestation is away. A session that attestation does not
            know is not in it.
        """
        async with self._lock:
            away = False
            missing = [name for name in provider_ids if self._fresh(name, FRESH_S) is None]
            for start in range(0, len(missing), _BATCH):
                try:
                    found = await self._read(missing[start : start + _BATCH])
                except MeshError:
                    away = True
                    break
                self._keep(found)

        shown: dict[str, ProviderEvidence | None] = {}
        for name in provider_ids:
            known = self._fresh(name, STALE_S if away else FRESH_S)
            if known is not None or away:
                shown[name] = known
        return shown

    def _fresh(self, name: str, seconds: float) -> ProviderEvidence | None:
        found = self._kept.get(name)
        if found is None or self._clock.monotonic() - found[1] >= seconds:
            return None
        return found[0]

    def _keep(self, found: Sequence[ProviderEvidence]) -> None:
        now = self._clock.monotonic()
        for evidence in found:
            self._kept[evidence.provider_id] = evidence, now
            self._kept.move_to_end(evidence.provider_id)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
