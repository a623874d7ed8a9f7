"""Whether a gateway's receipt holds, and is about the answer that came; pure."""

from collections.abc import Iterator

from darkbloom_edge.errors import SignatureRejected
from darkbloom_edge.receipt import Countersign, Receipt, terminal_sha256, verify_countersign
from darkbloom_edge.terminal import Terminal

from darkbloom_client.attempt import Attempt
from darkbloom_client.refusal import Reason, RefusedError


def check_receipt(
    receipt: Receipt, terminal: Terminal, attempt: Attempt, gateway_key: bytes
) -> None:
    """Check the gateway's countersign over a terminal that was checked.

    Raises:
        RefusedError: the receipt does not hold, or speaks of another answer.
    """
    machine = attempt.machine
    if (receipt.verdict, receipt.verdict_key_id) != (
        machine.signed.document,
        machine.signed.key_id,
    ):
        raise bad_receipt("the verdict that was sealed under", "another one")
    keys = {receipt.gateway_key_id: gateway_key}
    try:
        countersign = verify_countersign(
            receipt.countersign, receipt.countersign_signature, receipt.gateway_key_id, keys
        )
    except SignatureRejected as error:
        raise bad_receipt("the gateway's signature", error.reason.value) from None
    for name, said, known in _rows(countersign, receipt, terminal, attempt):
        if said != known:
            raise bad_receipt(f"{name} {known}", str(said))


def _rows(
    countersign: Countersign, receipt: Receipt, terminal: Terminal, attempt: Attempt
) -> Iterator[tuple[str, object, object]]:
    opened, last = countersign.opened, attempt.last
    yield "mode", countersign.mode, "end_to_end"
    yield "request", countersign.request_id, terminal.request_id
    yield "attempt", countersign.attempt_id, terminal.attempt_id
    yield "terminal", countersign.terminal_sha256, terminal_sha256(receipt.terminal)
    yield "sealed request", countersign.sealed_sha256, attempt.sealed_sha256
    yield "relayed chunks", countersign.relayed_sha256, attempt.relayed_sha256
    yield "model", countersign.requested_model, attempt.offer.requested_model
    yield "outcome", countersign.outcome, "completed"
    yield "chunks", opened.frames, attempt.frames
    yield "completion tokens", opened.completion_tokens, last.completion_tokens


def bad_receipt(expected: str, found: str) -> RefusedError:
    """Return the refusal of a receipt."""
    return RefusedError(Reason.RECEIPT_FORGED, expected=expected, found=found)
