"""The transparency log over a real store."""

import asyncio
import json
from functools import partial

import asyncpg
import pytest
from darkbloom.attestation.v1 import attestation_pb2
from darkbloom.attestation.v1 import attestation_service_pb2 as pb
from darkbloom.attestation.v1 import log_service_pb2 as log_pb
from darkbloom_attestation.transparency.tables import LogTable
from darkbloom_edge.ids import new_id
from darkbloom_edge.log import (
    CatalogEntry,
    LoggedBuild,
    LogHead,
    ReceiptsEntry,
    build_subject,
    decode_entry,
    includes,
    open_head,
)
from darkbloom_edge.merkle import leaf_hash, verify_consistency, verify_inclusion
from darkbloom_edge.signatures import Ed25519Signer
from darkbloom_mesh.errors import ConflictError, InvalidArgumentError, NotFoundError
from darkbloom_mesh.postgres import Database
from darkbloom_mesh.testing import FakeClock

from tests.component.attestation.harness import KEYS, RUNTIME, Attestation, served

ROOT = bytes(range(32))


async def head_of(attestation: Attestation) -> LogHead:
    signed = (await attestation.log("GetLogHead", log_pb.GetLogHeadRequest())).head
    return open_head(signed.document, signed.signature, signed.key_id, KEYS)


async def anchor(attestation: Attestation, batch: str = "", root: bytes = ROOT) -> int:
    request = log_pb.AppendReceiptBatchRequest(
        batch_id=batch or new_id("bat"), root_hash=root, size=3
    )
    return (await attestation.log("AppendReceiptBatch", request)).log_index


async def listed(attestation: Attestation, **wanted: object) -> list[dict]:
    request = log_pb.ListLogEntriesRequest(**wanted)
    answer = await attestation.log("ListLogEntries", request)
    return [json.loads(entry.body) for entry in answer.entries]


async def test_every_entry_is_provable_and_the_log_only_grows(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock) as attestation:
        heads = [await head_of(attestation)]
        for _ in range(9):
            await anchor(attestation)
            heads.append(await head_of(attestation))
        now = heads[-1]
        answer = await attestation.log("ListLogEntries", log_pb.ListLogEntriesRequest())
        for entry in answer.entries:
            proof = await attestation.log(
                "GetInclusionProof", log_pb.GetInclusionProofRequest(log_index=entry.log_index)
            )
            assert includes(now, entry.body, entry.log_index, proof.path)
            assert proof.leaf_hash == leaf_hash(entry.body)
        for old in heads[1:]:
            growth = await attestation.log(
                "GetConsistencyProof",
                log_pb.GetConsistencyProofRequest(first_size=old.tree_size),
            )
            roots = bytes.fromhex(old.root_hash), bytes.fromhex(now.root_hash)
            assert verify_consistency(old.tree_size, now.tree_size, *roots, growth.path)
            assert (growth.first_root_hash, growth.second_root_hash) == roots


async def test_a_release_is_in_the_log_when_it_is_blessed_and_when_it_is_taken_back(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock) as attestation:
        await attestation.bless()
        await attestation.bless()
        await attestation.call(
            "DeactivateCodeRelease",
            pb.DeactivateCodeReleaseRequest(code_release=f"sha256:{RUNTIME}"),
        )
        found = await listed(attestation, kind="release", subject=f"sha256:{RUNTIME}")
        assert [(one["action"], one["runtime_hash"]) for one in found] == [
            ("blessed", RUNTIME),
            ("withdrawn", RUNTIME),
        ]


async def test_a_receipt_key_is_logged_once_and_once_more_when_it_retires(
    database: Database, clock: FakeClock
) -> None:
    signer = Ed25519Signer.generate()
    key = attestation_pb2.SigningKey(key_id=signer.key_id, public_key=signer.public)
    key.create_time.FromDatetime(clock.now())
    retired = attestation_pb2.SigningKey()
    retired.CopyFrom(key)
    retired.retire_time.FromDatetime(clock.now())
    async with served(database, clock) as attestation:
        for one in (key, key, retired, retired):
            await attestation.call(
                "RegisterReceiptKey", pb.RegisterReceiptKeyRequest(key=one, gateway="g")
            )
        found = await listed(attestation, kind="receipt_key", subject=signer.key_id)
        assert [one["action"] for one in found] == ["published", "retired"]


async def test_a_batch_is_anchored_once_however_often_it_is_sent(
    database: Database, clock: FakeClock
) -> None:
    batch = new_id("bat")
    async with served(database, clock) as attestation:
        first = await anchor(attestation, batch)
        await clock.advance(5)
        assert await anchor(attestation, batch) == first
        with pytest.raises(ConflictError):
            await anchor(attestation, batch, ROOT[::-1])
        found = await listed(attestation, kind="receipts", subject=batch)
        assert [one["root_hash"] for one in found] == [ROOT.hex()]


async def test_writers_at_once_leave_no_gap(database: Database, clock: FakeClock) -> None:
    async with served(database, clock) as attestation:
        indices = await asyncio.gather(*(anchor(attestation) for _ in range(12)))
        assert sorted(indices) == list(range(12))
        head = await head_of(attestation)
        proof = await attestation.log(
            "GetInclusionProof", log_pb.GetInclusionProofRequest(log_index=11)
        )
        assert verify_inclusion(
            proof.leaf_hash, 11, head.tree_size, proof.path, bytes.fromhex(head.root_hash)
        )


async def test_pages_end_where_the_log_ends(database: Database, clock: FakeClock) -> None:
    async with served(database, clock) as attestation:
        for _ in range(5):
            await anchor(attestation)
        ask = partial(attestation.log, "ListLogEntries")
        first = await ask(log_pb.ListLogEntriesRequest(page_size=3))
        rest = await ask(log_pb.ListLogEntriesRequest(start_index=first.next_index, page_size=3))
        assert [entry.log_index for entry in (*first.entries, *rest.entries)] == [0, 1, 2, 3, 4]
        assert not rest.HasField("next_index")
        assert rest.tree_size == 5


async def test_a_page_ends_before_it_grows_too_large(database: Database, clock: FakeClock) -> None:
    builds = {
        f"org/{number}": LoggedBuild(weight_hash="", identity_hash="", accepted=["x" * 500])
        for number in range(1500)
    }
    async with served(database, clock) as attestation:
        for number in range(4):
            async with database.transaction() as connection:
                await LogTable(connection).append(
                    CatalogEntry(generation=number, builds=builds, time="2026-01-01T00:00:00Z")
                )
        ask = partial(attestation.log, "ListLogEntries")
        first = await ask(log_pb.ListLogEntriesRequest(kind="catalog"))
        assert [entry.log_index for entry in first.entries] == [0, 1, 2]
        rest = await ask(log_pb.ListLogEntriesRequest(start_index=first.next_index))
        assert [entry.log_index for entry in rest.entries] == [3]
        assert not rest.HasField("next_index")
        about = await ask(
            log_pb.ListLogEntriesRequest(
                kind="catalog", subject=build_subject("org/7", "x" * 500), page_size=1
            )
        )
        assert [entry.log_index for entry in about.entries] == [0]
        assert about.next_index == 1


async def test_an_empty_log_has_a_head(database: Database, clock: FakeClock) -> None:
    async with served(database, clock) as attestation:
        head = await head_of(attestation)
        assert head.tree_size == 0
        assert head.root_hash.startswith("e3b0c442")


@pytest.mark.parametrize(
    ("method", "request_", "error"),
    [
        ("GetInclusionProof", log_pb.GetInclusionProofRequest(log_index=1), NotFoundError),
        ("GetInclusionProof", log_pb.GetInclusionProofRequest(tree_size=9), NotFoundError),
        ("GetInclusionProof", log_pb.GetInclusionProofRequest(log_index=-1), InvalidArgumentError),
        ("GetInclusionProof", log_pb.GetInclusionProofRequest(tree_size=-1), InvalidArgumentError),
        ("GetConsistencyProof", log_pb.GetConsistencyProofRequest(), InvalidArgumentError),
        ("GetConsistencyProof", log_pb.GetConsistencyProofRequest(first_size=2), NotFoundError),
        ("ListLogEntries", log_pb.ListLogEntriesRequest(start_index=-1), InvalidArgumentError),
        ("ListLogEntries", log_pb.ListLogEntriesRequest(page_size=1001), InvalidArgumentError),
        ("ListLogEntries", log_pb.ListLogEntriesRequest(kind="prompt"), InvalidArgumentError),
        ("ListLogEntries", log_pb.ListLogEntriesRequest(subject="x"), InvalidArgumentError),
        (
            "ListLogEntries",
            log_pb.ListLogEntriesRequest(kind="release", subject="\0"),
            InvalidArgumentError,
        ),
        (
            "AppendReceiptBatch",
            log_pb.AppendReceiptBatchRequest(batch_id="bat_1", root_hash=ROOT, size=1),
            InvalidArgumentError,
        ),
        (
            "AppendReceiptBatch",
            log_pb.AppendReceiptBatchRequest(batch_id=new_id("bat"), root_hash=b"x", size=1),
            InvalidArgumentError,
        ),
        (
            "AppendReceiptBatch",
            log_pb.AppendReceiptBatchRequest(batch_id=new_id("bat"), root_hash=ROOT, size=4097),
            InvalidArgumentError,
        ),
    ],
)
async def test_what_is_not_there_or_makes_no_sense_is_refused(
    served_log: Attestation, method: str, request_: object, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await served_log.log(method, request_)


@pytest.mark.parametrize("table", ["log_entries", "log_subjects", "log_nodes"])
@pytest.mark.parametrize(
    "statement", ["DELETE FROM {}", "TRUNCATE {}", "UPDATE {} SET kind = 'catalog'"]
)
async def test_the_store_refuses_to_change_history(
    served_log: Attestation, database: Database, table: str, statement: str
) -> None:
    if table == "log_nodes":
        statement = statement.replace("kind = 'catalog'", "level = 1")
    with pytest.raises(asyncpg.PostgresError, match="append-only"):
        async with database.transaction() as connection:
            await connection.execute(statement.format(f"attestation.{table}"))


async def append_and_break(database: Database, entry: ReceiptsEntry) -> None:
    async with database.transaction() as connection:
        assert await LogTable(connection).append(entry) == 0
        raise RuntimeError("broken")


async def test_what_is_rolled_back_was_never_in_the_log(
    database: Database, clock: FakeClock
) -> None:
    entry = ReceiptsEntry(batch="bat_1", root_hash=ROOT.hex(), size=1, time="2026-01-01T00:00:00Z")
    async with served(database, clock) as attestation:
        with pytest.raises(RuntimeError, match="broken"):
            await append_and_break(database, entry)
        assert (await head_of(attestation)).tree_size == 0
        assert await anchor(attestation) == 0
        answer = await attestation.log("ListLogEntries", log_pb.ListLogEntriesRequest())
        assert decode_entry(answer.entries[0].body) != entry
