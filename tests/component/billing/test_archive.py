"""Receipts kept whole: who may read them, how they are anchored, when they are forgotten."""

import hashlib
from datetime import timedelta

import pytest
from darkbloom.billing.v1 import ledger_pb2, receipt_service_pb2
from darkbloom.billing.v1.receipt_service_pb2_grpc import ReceiptServiceStub
from darkbloom.common.v1.price_pb2 import SignedDocument
from darkbloom_billing.archive.keeper import ArchiveKeeper
from darkbloom_billing.archive.model import Batch
from darkbloom_billing.archive.store import PostgresArchive
from darkbloom_edge.ids import new_id
from darkbloom_edge.merkle import leaf_hash, verify_inclusion
from darkbloom_mesh.errors import MeshError, NotFoundError, UnavailableError, from_rpc_error
from grpc.aio import AioRpcError

from tests.component.billing.test_receipts import record, send
from tests.component.billing.test_settlements import held
from tests.component.billing.world import (
    CONSUMER,
    PROVIDER,
    World,
    open_database,
    owner,
    signing_key,
    world,
)

KEEP = timedelta(days=90)


class Log:
    """Gives each batch one index, and can be away."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.away = False

    async def append(self, batch: Batch) -> int:
        if self.away:
            raise UnavailableError("log does not answer")
        if batch not in self.batches:
            self.batches.append(batch)
        return self.batches.index(batch) + 7


async def whole(w: World, **changes: object) -> tuple[str, str, ledger_pb2.ReceiptRecord]:
    """Send a whole receipt of a held request; return its request, attempt and record."""
    name = await held(w)
    attempt, made = whole_record(w, name, **changes)
    assert await send(w, made) == 1
    return name, attempt, made


def whole_record(w: World, name: str, **changes: object) -> tuple[str, ledger_pb2.ReceiptRecord]:
    """Return an attempt and the whole receipt of it."""
    attempt = new_id("att")
    terminal = w.terminal(name)
    fields = {
        "attempt_id": attempt,
        "terminal_sha256": hashlib.sha256(terminal.document).hexdigest(),
        **changes,
    }
    made = record(w, name, **fields)
    made.terminal.CopyFrom(terminal)
    made.verdict.CopyFrom(w.verdict()[1])
    made.identity_key = w.machine.public
    return attempt, made


async def ask(
    w: World, name: str, account_id: str = CONSUMER
) -> receipt_service_pb2.GetReceiptResponse:
    request = receipt_service_pb2.GetReceiptRequest(account_id=account_id, id=name)
    try:
        return await ReceiptServiceStub(w.channel).GetReceipt(request, timeout=30)
    except AioRpcError as error:
        raise from_rpc_error(error) from None


async def missing(w: World, name: str, account_id: str = CONSUMER) -> None:
    with pytest.raises(NotFoundError):
        await ask(w, name, account_id)


async def ready(w: World) -> None:
    await w.people()
    w.attestation.receipt_keys.append(signing_key(w.receipts))


async def test_a_receipt_is_there_for_its_account_alone_and_is_proven_by_the_log(url: str) -> None:
    async with world(url, anchor_period_s=1e9) as w:
        await ready(w)
        kept = [await whole(w) for _ in range(5)]
        request, attempt, made = kept[2]
        found = await ask(w, request)
        assert found.record == made
        assert (await ask(w, attempt)).record == made
        assert not found.HasField("anchor")
        await missing(w, request, PROVIDER)
        await missing(w, new_id("req"))

        database, log = await open_database(url), Log()
        archive = PostgresArchive(database, lambda size: b"\1" * size)
        counted: list[int] = []
        keeper = ArchiveKeeper(archive, log, w.clock, keep=KEEP, on_anchored=counted.append)
        log.away = True
        with pytest.raises(MeshError):
            await keeper.anchor()
        log.away = False
        await keeper.anchor()
        await keeper.anchor()
        await database.close()

        assert counted == [5]
        (batch,) = log.batches
        for request, _, made in kept:
            anchor = (await ask(w, request)).anchor
            assert (anchor.batch_id, anchor.log_index) == (batch.batch_id, 7)
            assert verify_inclusion(
                leaf_hash(made.countersign.document),
                anchor.index,
                anchor.size,
                anchor.path,
                batch.root,
            )


async def test_a_receipt_that_nobody_paid_for_is_kept_as_long_and_leaves_nothing(url: str) -> None:
    async with world(url, anchor_period_s=1e9) as w:
        await ready(w)
        request = new_id("req")
        attempt, made = whole_record(w, request)
        # Without a hold somebody must be named, and be there.
        assert await send(w, made) == 0
        made.free_account_id = "acct_nobody"
        assert await send(w, made) == 0
        made.free_account_id = CONSUMER
        assert await send(w, made) == 1
        assert await send(w, made) == 0
        made.ClearField("free_account_id")
        assert (await ask(w, request)).record == made
        assert (await ask(w, attempt)).record == made
        await missing(w, request, PROVIDER)

        database, log = await open_database(url), Log()
        archive = PostgresArchive(database, lambda size: b"\3" * size)
        keeper = ArchiveKeeper(archive, log, w.clock, keep=KEEP)
        await keeper.anchor()
        anchor = (await ask(w, request)).anchor
        leaf = leaf_hash(made.countersign.document)
        assert verify_inclusion(leaf, anchor.index, anchor.size, anchor.path, log.batches[0].root)

        await w.clock.advance(KEEP.total_seconds() + 1)
        while await keeper.forget():
            pass
        await database.close()
        async with owner(url) as connection:
            left = await connection.fetchrow(
                "SELECT (SELECT count(*) FROM billing.receipt_proof) AS proofs,"
                " (SELECT count(*) FROM billing.receipt_batch) AS batches,"
                " (SELECT count(*) FROM billing.receipt) AS receipts"
            )
        assert tuple(left) == (0, 0, 0)


async def test_whose_money_was_held_is_not_for_the_gateway_to_say(url: str) -> None:
    async with world(url, anchor_period_s=1e9) as w:
        await ready(w)
        request = await held(w)
        _, made = whole_record(w, request)
        made.free_account_id = PROVIDER
        assert await send(w, made) == 1
        await missing(w, request, PROVIDER)
        assert (await ask(w, request)).record.request_id == request


async def test_what_is_not_a_whole_receipt_is_recorded_but_not_archived(url: str) -> None:
    async with world(url, anchor_period_s=1e9) as w:
        await ready(w)
        other, _, _ = await whole(w, terminal_sha256="0" * 64)
        await missing(w, other)
        name = await held(w)
        await send(w, record(w, name, outcome="broken", terminal_sha256=None))
        await missing(w, name)
        large = record(w, await held(w))
        large.terminal.CopyFrom(SignedDocument(document=b"x" * 65_537))
        large.verdict.CopyFrom(large.terminal)
        assert await send(w, large) == 1
        await missing(w, large.request_id)


async def test_receipts_are_forgotten_after_their_time_and_no_earlier(url: str) -> None:
    async with world(url, anchor_period_s=1e9) as w:
        await ready(w)
        old, _, _ = await whole(w)
        database, log = await open_database(url), Log()
        archive = PostgresArchive(database, lambda size: b"\2" * size)
        keeper = ArchiveKeeper(archive, log, w.clock, keep=KEEP)
        await keeper.anchor()
        assert not await keeper.forget()
        await w.clock.advance(KEEP.total_seconds() - 60)
        young, _, _ = await whole(w)
        assert not await keeper.forget()
        assert (await ask(w, old)).expire_time.ToDatetime() > w.clock.now().replace(tzinfo=None)

        await w.clock.advance(61)
        await missing(w, old)
        while await keeper.forget():
            pass
        await database.close()
        assert (await ask(w, young)).record.request_id == young
        async with owner(url) as connection:
            counts = await connection.fetchrow(
                "SELECT (SELECT count(*) FROM billing.receipt_proof) AS proofs,"
                " (SELECT count(*) FROM billing.receipt_batch) AS batches,"
                " (SELECT count(*) FROM billing.receipt) AS receipts"
            )
        assert tuple(counts) == (1, 0, 2)
