"""The public log, blessed releases and kept receipts over HTTP."""

import base64
from collections.abc import AsyncIterator
from functools import partial

import pytest
import pytest_asyncio
from darkbloom.attestation.v1.attestation_pb2 import CodeRelease
from darkbloom.attestation.v1.log_service_pb2_grpc import add_LogServiceServicer_to_server
from darkbloom.billing.v1 import receipt_service_pb2
from darkbloom.billing.v1.receipt_service_pb2_grpc import add_ReceiptServiceServicer_to_server
from darkbloom_edge.ids import new_id
from darkbloom_edge.log import ReceiptsEntry, encode_entry, includes, open_head
from darkbloom_edge.merkle import verify_consistency
from darkbloom_edge.rings import place
from darkbloom_edge.signatures import Ed25519Signer

from tests.component.gateway.harness import BEARER, Harness, gateway
from tests.fakes.transparency import FakeLog, FakeReceipts

pytestmark = pytest.mark.asyncio(loop_scope="session")
SIGNER = Ed25519Signer.generate()
RINGED, YOUNG_PERCENT = "linux-arm64", 10
FOR_EVER = "public, max-age=31536000, immutable"


def release(version: str, mark: str, platform: str = "macos-arm64") -> CodeRelease:
    return CodeRelease(
        code_release=f"sha256:{mark * 64}",
        version=version,
        platform=platform,
        python_hash=mark * 64,
        runtime_hash=mark * 64,
        template_hashes={"chat.jinja": mark * 64},
        active=True,
    )


class Running:
    def __init__(self, harness: Harness, log: FakeLog, receipts: FakeReceipts) -> None:
        self.harness, self.log, self.receipts = harness, log, receipts

    async def get(self, path: str, **params: object) -> dict:
        answer = await self.harness.http.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def refused(self, path: str, status: int, headers: dict | None = None) -> None:
        answer = await self.harness.http.get(path, headers=headers)
        assert answer.status_code == status, answer.text
        assert answer.json()["error"]["message"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def running(valkey_url: str) -> AsyncIterator[Running]:
    log, receipts = FakeLog(SIGNER), FakeReceipts()
    log.entries = [
        encode_entry(
            ReceiptsEntry(
                batch=f"bat_{number}", root_hash="0" * 64, size=1, time="2026-01-01T00:00:00Z"
            )
        )
        for number in range(7)
    ]
    async with gateway(
        valkey_url,
        partial(add_LogServiceServicer_to_server, log),
        partial(add_ReceiptServiceServicer_to_server, receipts),
    ) as harness:
        harness.attestation.releases = [
            release("1.9.0", "a"),
            release("1.10.0-rc.1", "b"),
            release("1.10.0", "c"),
            release("9.0.0", "d", "linux-x86_64"),
        ]
        old, young, held = (
            release(f"{number}.0.0", mark, RINGED)
            for number, mark in ((2, "a"), (3, "b"), (4, "c"))
        )
        young.offer.percent = YOUNG_PERCENT
        held.offer.percent, held.offer.held = 100, "its machines die"
        harness.attestation.releases += [old, young, held]
        yield Running(harness, log, receipts)


async def test_a_stranger_can_check_each_entry_against_the_signed_head(running: Running) -> None:
    shown = await running.get("/v1/log/head")
    signed = shown["head"]
    head = open_head(
        base64.b64decode(signed["document"]),
        base64.b64decode(signed["signature"]),
        signed["key_id"],
        {SIGNER.key_id: SIGNER.public},
    )
    assert (shown["tree_size"], shown["root_hash"]) == (head.tree_size, head.root_hash)
    listed = await running.get("/v1/log/entries")
    assert [one["index"] for one in listed["entries"]] == list(range(7))
    for one in listed["entries"]:
        proof = await running.get(
            "/v1/log/proof/inclusion", index=one["index"], size=head.tree_size
        )
        path = [bytes.fromhex(text) for text in proof["path"]]
        assert includes(head, base64.b64decode(one["entry"]), one["index"], path)


async def test_a_stranger_can_check_that_the_log_has_only_grown(running: Running) -> None:
    proof = await running.get("/v1/log/proof/consistency", first=3)
    path = [bytes.fromhex(text) for text in proof["path"]]
    roots = bytes.fromhex(proof["first_root_hash"]), bytes.fromhex(proof["second_root_hash"])
    assert verify_consistency(3, 7, *roots, path)


async def test_pages_and_subjects(running: Running) -> None:
    page = await running.get("/v1/log/entries", start=2, limit=3)
    assert [one["index"] for one in page["entries"]] == [2, 3, 4]
    assert page["next"] == 5
    assert "next" not in await running.get("/v1/log/entries", start=5)
    found = await running.get("/v1/log/entries", kind="receipts", subject="bat_4")
    assert [one["index"] for one in found["entries"]] == [4]


async def test_only_what_can_never_change_is_cached_for_ever(running: Running) -> None:
    http = running.harness.http
    for path, kept in (
        ("/v1/log/head", False),
        ("/v1/log/entries", False),
        ("/v1/log/proof/inclusion?index=1", False),
        ("/v1/log/proof/inclusion?index=1&size=5", True),
        ("/v1/log/proof/consistency?first=1", False),
        ("/v1/log/proof/consistency?first=1&second=5", True),
    ):
        assert ((await http.get(path)).headers["cache-control"] == FOR_EVER) is kept


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/log/proof/inclusion", 400),
        ("/v1/log/proof/inclusion?index=7", 404),
        ("/v1/log/proof/inclusion?index=1&size=8", 404),
        ("/v1/log/proof/inclusion?index=-1", 400),
        ("/v1/log/proof/inclusion?index=99999999999999999999", 400),
        ("/v1/log/proof/consistency", 400),
        ("/v1/log/proof/consistency?first=0", 400),
        ("/v1/log/proof/consistency?first=5&second=3", 404),
        ("/v1/log/entries?limit=1001", 400),
        ("/v1/log/entries?start=-1", 400),
        ("/v1/log/entries?start=x", 400),
        ("/v1/log/entries?subject=x", 400),
        ("/v1/receipts/req_1", 401),
        ("/v1/releases/latest?platform=plan9", 404),
    ],
)
async def test_what_makes_no_sense_is_refused(running: Running, path: str, status: int) -> None:
    await running.refused(path, status)


async def test_blessed_releases_are_shown_newest_first_for_a_platform_and_as_a_union(
    running: Running,
) -> None:
    latest = await running.get("/v1/releases/latest")
    assert latest["version"] == "1.10.0"
    assert len((await running.get("/v1/releases"))["releases"]) == 7
    manifest = await running.get("/v1/runtime/manifest")
    union = [mark * 64 for mark in "abcd"]
    assert manifest["runtime_hashes"] == manifest["python_hashes"] == union
    assert manifest["template_hashes"] == {"chat.jinja": union}


async def test_a_new_version_is_named_to_the_machines_of_its_ring_alone(running: Running) -> None:
    async def named(ring: str) -> str:
        return (await running.get("/v1/releases/latest", platform=RINGED, ring=ring))["version"]

    assert [await named(mark) for mark in ("", "no mark", "0" * 17)] == ["2.0.0"] * 3
    for number in range(30):
        mark = f"{number:016x}"
        inside = place(release("3.0.0", "b").code_release, mark) < YOUNG_PERCENT
        assert await named(mark) == ("3.0.0" if inside else "2.0.0")
    shown = [one.get("offer") for one in (await running.get("/v1/releases"))["releases"]]
    assert shown[-2:] == [{"percent": 10, "held": False}, {"percent": 100, "held": True}]
    assert "its machines die" not in (await running.harness.http.get("/v1/releases")).text


async def test_a_receipt_is_read_without_its_key_by_its_account_alone(running: Running) -> None:
    name = new_id("req")
    kept = receipt_service_pb2.GetReceiptResponse()
    kept.record.request_id = name
    kept.record.identity_key = b"\4" * 65
    kept.record.countersign.document = b"{}"
    kept.anchor.batch_id, kept.anchor.size, kept.anchor.log_index = "bat_4", 1, 4
    kept.anchor.root_hash = bytes(32)
    account = next(iter(running.harness.billing.keys.values())).account_id
    running.receipts.kept[account, name] = kept
    answer = await running.harness.http.get(f"/v1/receipts/{name}", headers=BEARER)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "private, no-store"
    shown = answer.json()
    assert "receipt_key" not in shown["receipt"]
    assert shown["anchor"] == {
        "batch": "bat_4",
        "index": 0,
        "size": 1,
        "path": [],
        "root_hash": "00" * 32,
        "log_index": 4,
    }
    await running.refused(f"/v1/receipts/{new_id('req')}", 404, BEARER)
