"""Countersigned records: what is kept, and what is not believed."""

import hashlib
from typing import Any

import grpc
import pytest
from darkbloom.billing.v1 import ledger_pb2
from darkbloom.billing.v1 import ledger_service_pb2 as ledger_pb
from darkbloom.common.v1 import price_pb2
from darkbloom_edge.documents import rfc3339
from darkbloom_edge.receipt import Countersign, OpenedCounts, sign_countersign
from darkbloom_edge.signatures import Ed25519Signer

from tests.component.billing.test_settlements import held
from tests.component.billing.world import World, attempt_id, request_id, signing_key, world


def record(w: World, name: str, **more: Any) -> ledger_pb2.ReceiptRecord:
    signer = more.pop("signer", w.receipts)
    fields: dict[str, Any] = {
        "request_id": name,
        "attempt_id": attempt_id(),
        "terminal_sha256": "0" * 64,
        "body_digest": "0" * 64,
        "requested_model": "alias",
        "opened": OpenedCounts(frames=3, prompt_tokens=40, completion_tokens=20),
        "outcome": "completed",
        "issued_at": rfc3339(w.clock.now()),
    }
    document, signature = sign_countersign(Countersign(**{**fields, **more}), signer)
    signed = price_pb2.SignedDocument(document=document, signature=signature, key_id=signer.key_id)
    return ledger_pb2.ReceiptRecord(request_id=name, countersign=signed)


async def send(w: World, *records: ledger_pb2.ReceiptRecord) -> int:
    request = ledger_pb.RecordReceiptsRequest(records=records)
    return (await w.ledger.RecordReceipts(request, timeout=30)).recorded


async def test_a_receipt_is_kept_once_and_completes_its_settlement(url: str) -> None:
    async with world(url) as w:
        await w.people()
        w.attestation.receipt_keys.append(signing_key(w.receipts))
        name = await held(w)
        settlement = w.settlement(name)
        await w.settle(settlement)
        digest = hashlib.sha256(settlement.terminal.document).hexdigest()
        receipt = record(w, name, terminal_sha256=digest)

        assert await send(w, receipt, receipt) == 1
        assert await send(w, receipt) == 0
        assert not any((await w.audit()).findings.values())


async def test_a_receipt_of_another_terminal_is_a_finding(url: str) -> None:
    async with world(url) as w:
        await w.people()
        w.attestation.receipt_keys.append(signing_key(w.receipts))
        name = await held(w)
        await w.settle(w.settlement(name))
        await send(w, record(w, name))
        assert await findings(w) == {"receipts_differ": 1}


def opened(prompt: int, completion: int, cached: int = 0) -> OpenedCounts:
    return OpenedCounts(
        frames=3, prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached
    )


async def findings(w: World) -> dict[str, int]:
    return {name: number for name, number in (await w.audit()).findings.items() if number}


def broken(w: World, name: str, **more: Any) -> ledger_pb2.ReceiptRecord:
    """What a gateway says of an answer that broke."""
    verdict_id = w.verdict()[0].verdict_id
    fields = {"terminal_sha256": None, "outcome": "broken", "verdict_id": verdict_id}
    return record(w, name, **{**fields, **more})


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, {}),
        ({"opened": opened(40, 3)}, {"receipts_exceeded": 1}),
        ({"opened": opened(39, 20)}, {"receipts_exceeded": 1}),
        ({"opened": opened(40, 20, cached=5)}, {"receipts_exceeded": 1}),
        ({"opened": opened(40, 30)}, {"receipts_unpaid": 1}),
        ({"attempt_id": "att_" + "f" * 32}, {"receipts_differ": 1}),
        ({"verdict_id": "ver_" + "f" * 32}, {"receipts_differ": 1}),
    ],
)
async def test_a_broken_answer_that_was_settled_against_the_gateways_word_is_a_finding(
    url: str, said: dict[str, Any], expected: dict[str, int]
) -> None:
    async with world(url) as w:
        await w.people()
        w.attestation.receipt_keys.append(signing_key(w.receipts))
        name = await held(w)
        (ended,) = await w.settle(w.settlement(name, terminal=None))
        assert ended.completion_tokens == 20
        assert await findings(w) == {"receipts_missing": 1}

        assert await send(w, broken(w, name, **said)) == 1

        assert await findings(w) == expected


async def test_an_answer_that_was_opened_and_never_paid_is_a_finding(url: str) -> None:
    async with world(url) as w:
        await w.people()
        w.attestation.receipt_keys.append(signing_key(w.receipts))
        name = await held(w)
        await send(w, broken(w, name))
        assert await findings(w) == {}
        await w.release(name)
        assert await findings(w) == {"receipts_unpaid": 1}


async def test_forged_or_unknown_receipts_are_dropped_and_the_others_kept(url: str) -> None:
    async with world(url) as w:
        await w.people()
        w.attestation.receipt_keys.append(signing_key(w.receipts))
        name = await held(w)
        swapped = record(w, request_id())
        swapped.request_id = name
        cut = record(w, name)
        cut.countersign.signature = bytes(64)
        forged = (
            swapped,
            cut,
            record(w, name, signer=Ed25519Signer.generate()),
            record(w, request_id()),
            ledger_pb2.ReceiptRecord(request_id=name),
        )
        assert await send(w, *forged) == 0
        assert await send(w, *forged, record(w, name)) == 1


async def test_while_attestation_is_away_receipts_are_to_be_sent_again(url: str) -> None:
    async with world(url) as w:
        await w.people()
        name = await held(w)
        w.attestation.away = True
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await send(w, record(w, name))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
