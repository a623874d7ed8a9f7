"""Countersigned records of requests: earnings mature only once theirs is here."""

from collections.abc import Sequence

import structlog
from darkbloom_edge.errors import EdgeError
from darkbloom_edge.receipt import verify_countersign
from darkbloom_mesh.clock import Clock

from darkbloom_billing.keyring import KeyRing
from darkbloom_billing.meters import Meters
from darkbloom_billing.model import Receipt, Signed
from darkbloom_billing.ports import ReceiptStore

_log = structlog.get_logger()


class Receipts:
    """Keeps records that a gateway's receipt key has signed; others are counted and dropped."""

    def __init__(
        self, store: ReceiptStore, receipt_keys: KeyRing, clock: Clock, meters: Meters
    ) -> None:
        self._store = store
        self._receipt_keys = receipt_keys
        self._clock = clock
        self._meters = meters

    async def record(self, records: Sequence[tuple[str, Signed]]) -> int:
        """Check and keep records, given as (request id, countersign); return how many were new.

        Raises:
            KeysUnavailableError: A record names a key that nobody can look up now.
        """
        keys = await self._receipt_keys.knowing([signed.key_id for _, signed in records])
        public = {key_id: key.public for key_id, key in keys.items()}
        receipts: list[Receipt] = []
        for request_id, signed in records:
            try:
                countersign = verify_countersign(
                    signed.document, signed.signature, signed.key_id, public
                )
            except EdgeError:
                continue
            if countersign.request_id != request_id:
                continue
            receipts.append(
                Receipt(
                    request_id=request_id,
                    signed=signed,
                    terminal_sha256=countersign.terminal_sha256 or "",
                )
            )
        recorded = await self._store.record(receipts, now=self._clock.now()) if receipts else 0
        rejected = len(records) - len(receipts)
        self._meters.receipts("recorded", recorded)
        self._meters.receipts("repeated", len(receipts) - recorded)
        self._meters.receipts("rejected", rejected)
        if rejected:
            _log.warning("receipts_rejected", receipts=rejected)
        return recorded
