"""Countersigned records of requests: earnings mature only once theirs is here."""

from collections.abc import Sequence
from typing import NamedTuple

import structlog
from darkbloom_edge.errors import EdgeError
from darkbloom_edge.receipt import Countersign, terminal_sha256, verify_countersign
from darkbloom_mesh.clock import Clock

from darkbloom_billing.keyring import KeyRing
from darkbloom_billing.meters import Meters
from darkbloom_billing.model import Receipt, Signed
from darkbloom_billing.ports import ReceiptStore

_log = structlog.get_logger()


MAX_DOCUMENT_BYTES = 65_536
"""Largest terminal or verdict that is kept."""
MAX_SIGNATURE_BYTES = 256
POINT_BYTES = 65


class Handed(NamedTuple):
    """A record as a gateway hands it in."""

    request_id: str
    countersign: Signed
    terminal: Signed | None = None
    verdict: Signed | None = None
    identity_key: bytes = b""
    free_account_id: str = ""


class Receipts:
    """Keeps records that a gateway's receipt key has signed; others are counted and dropped."""

    def __init__(
        self, store: ReceiptStore, receipt_keys: KeyRing, clock: Clock, meters: Meters
    ) -> None:
        self._store = store
        self._receipt_keys = receipt_keys
        self._clock = clock
        self._meters = meters

    async def record(self, records: Sequence[Handed]) -> int:
        """Check and keep records; return how many were new.

        A terminal counts only where the countersign names it, and is kept only with its verdict.

        Raises:
            KeysUnavailableError: A record names a key that nobody can look up now.
        """
        keys = await self._receipt_keys.knowing([handed.countersign.key_id for handed in records])
        public = {key_id: key.public for key_id, key in keys.items()}
        receipts: list[Receipt] = []
        for handed in records:
            signed = handed.countersign
            try:
                countersign = verify_countersign(
                    signed.document, signed.signature, signed.key_id, public
                )
            except EdgeError:
                continue
            if countersign.request_id != handed.request_id:
                continue
            receipts.append(
                Receipt(
                    request_id=handed.request_id,
                    signed=signed,
                    terminal_sha256=countersign.terminal_sha256 or "",
                    attempt_id=countersign.attempt_id,
                    terminal=handed.terminal if _whole(handed, countersign) else None,
                    verdict=handed.verdict,
                    identity_key=handed.identity_key,
                    free_account_id=handed.free_account_id,
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


def _whole(handed: Handed, countersign: Countersign) -> bool:
    """Tell whether a record is a whole receipt, of bounded size, about one answer."""
    terminal, verdict = handed.terminal, handed.verdict
    if terminal is None or verdict is None or len(handed.identity_key) != POINT_BYTES:
        return False
    if any(
        len(signed.document) > MAX_DOCUMENT_BYTES or len(signed.signature) > MAX_SIGNATURE_BYTES
        for signed in (terminal, verdict)
    ):
        return False

    return countersign.terminal_sha256 == terminal_sha256(terminal.document)
