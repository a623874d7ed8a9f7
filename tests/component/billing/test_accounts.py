"""Accounts, keys, links, grants and prices over the wire."""

import asyncio
import hashlib
from datetime import timedelta
from typing import Any

import grpc
import pytest
from darkbloom.billing.v1 import account_service_pb2 as accounts_pb
from darkbloom.billing.v1 import price_service_pb2 as prices_pb
from darkbloom.common.v1 import error_reason_pb2 as reasons
from darkbloom_billing import key_feed
from darkbloom_edge.signatures import P256Signer
from darkbloom_mesh.errors import MeshError, from_rpc_error

from tests.component.billing.world import CONSUMER, PROVIDER, World, world

HASH = hashlib.sha256(b"secret").digest()


async def refused(call: Any) -> MeshError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


def resolve(w: World, key_hash: bytes = HASH) -> Any:
    return w.accounts.ResolveKey(accounts_pb.ResolveKeyRequest(key_hash=key_hash), timeout=30)


async def test_a_key_resolves_by_its_hash_and_a_stranger_does_not(url: str) -> None:
    async with world(url) as w:
        await w.people()
        key = await w.key(b"secret", limit=5)
        found = await resolve(w)

        assert (found.key.key_id, found.key.account_id) == (key, CONSUMER)
        assert (found.key.limit_micros, found.key.HasField("rpm_limit")) == (5, False)
        error = await refused(resolve(w, bytes(32)))
        assert error.reason == reasons.ERROR_REASON_KEY_UNKNOWN
        assert (await refused(resolve(w, b"short"))).metadata["darkbloom-field"] == "key_hash"


async def test_creating_a_key_is_idempotent_by_its_hash(url: str) -> None:
    async with world(url) as w:
        await w.people()
        assert await w.key(b"secret", limit=5) == await w.key(b"secret", limit=5)
        error = await refused(w.key(b"secret", limit=6))
        assert error.reason == reasons.ERROR_REASON_IDEMPOTENCY_CONFLICT
        await w.sound()


async def test_a_key_that_is_revoked_or_expired_is_refused(url: str) -> None:
    async with world(url) as w:
        await w.people()
        key = await w.key(b"secret")
        request = accounts_pb.CreateKeyRequest(
            account_id=CONSUMER, key_hash=hashlib.sha256(b"short-lived").digest()
        )
        request.expire_time.FromDatetime(w.clock.now() + timedelta(seconds=10))
        await w.accounts.CreateKey(request, timeout=30)
        await resolve(w, request.key_hash)
        for _ in range(2):
            revoked = await w.accounts.RevokeKey(
                accounts_pb.RevokeKeyRequest(key_id=key), timeout=30
            )
            assert revoked.key.revoked

        await w.clock.advance(10)
        for key_hash in (HASH, request.key_hash):
            error = await refused(resolve(w, key_hash))
            assert error.reason == reasons.ERROR_REASON_KEY_REVOKED
        unknown = accounts_pb.RevokeKeyRequest(key_id="key_x")
        error = await refused(w.accounts.RevokeKey(unknown, timeout=30))
        assert error.reason == reasons.ERROR_REASON_NOT_FOUND


async def test_a_watch_begins_with_a_reset_and_then_names_each_key_that_changes(url: str) -> None:
    async with world(url, poll_period_s=30) as w:
        await w.people()
        key = await w.key(b"secret")
        async with asyncio.timeout(20):
            call = w.accounts.WatchKeys(accounts_pb.WatchKeysRequest())
            first = await call.read()
            assert first.WhichOneof("event") == "reset"
            await w.accounts.RevokeKey(accounts_pb.RevokeKeyRequest(key_id=key), timeout=30)
            events = [await call.read()]
            while events[-1].WhichOneof("event") == "heartbeat" or events[-1].changed.key_id != key:
                events.append(await call.read())
            # By notification: the next poll would have been half a minute away.
            assert events[-1].changed.key_hash == HASH
            found = events[-1].generation
            while (await call.read()).WhichOneof("event") != "heartbeat":
                pass
        call.cancel()
        assert found > first.generation >= 0


async def test_a_watcher_that_overflows_is_told_to_forget_everything() -> None:
    watch = key_feed.Watch(7)
    for generation in range(8, 8 + key_feed.MAX_WAITING + 1):
        watch.push(key_feed.KeyChange(generation=generation, key_id="k", key_hash=b""))
    assert await watch.take(1) is None
    assert watch.generation == 8 + key_feed.MAX_WAITING


class Forgetful:
    """A store that has forgotten what lay between."""

    def __init__(self, *generations: int) -> None:
        self.changes = [
            key_feed.KeyChange(generation=n, key_id=f"k{n}", key_hash=b"") for n in generations
        ]

    async def key_generation(self) -> int:
        return 7

    async def key_changes(self, after: int) -> list[key_feed.KeyChange]:
        return [change for change in self.changes if change.generation > after]


async def test_a_gap_in_what_is_remembered_has_watchers_forget_everything() -> None:
    store = Forgetful(8, 9)
    feed = key_feed.KeyFeed(store)  # type: ignore[arg-type]
    await feed.start()
    with feed.watch() as watch:
        await feed.refresh()
        assert [change.key_id for change in await watch.take(1) or ()] == ["k8", "k9"]
        store.changes = Forgetful(11).changes
        await feed.refresh()
        assert await watch.take(1) is None


async def test_a_watch_ends_when_the_replica_drains(url: str) -> None:
    async with world(url, drain_grace_s=60) as w:
        call = w.accounts.WatchKeys(accounts_pb.WatchKeysRequest())
        await call.read()
        w.service.stop()
        async with asyncio.timeout(30):
            while (await call.read()) is not grpc.aio.EOF:
                pass
        assert await call.code() is grpc.StatusCode.OK


async def test_a_grant_is_paid_once_by_the_owners_capital(url: str) -> None:
    async with world(url) as w:
        await w.account(CONSUMER)
        request = accounts_pb.GrantRequest(
            request_id="g", account_id=CONSUMER, amount_micros=700, note="hello"
        )
        for _ in range(3):
            response = await w.accounts.Grant(request, timeout=30)
            assert response.balance_micros == 700
        request.amount_micros = 701
        error = await refused(w.accounts.Grant(request, timeout=30))
        assert error.reason == reasons.ERROR_REASON_IDEMPOTENCY_CONFLICT
        assert await w.balance(CONSUMER) == (700, 0, 0)
        await w.sound()


@pytest.mark.parametrize(
    ("field", "value"),
    [("amount_micros", 0), ("amount_micros", -1), ("amount_micros", 2**62), ("request_id", "")],
)
async def test_a_malformed_grant_names_its_field(url: str, field: str, value: Any) -> None:
    async with world(url) as w:
        await w.account(CONSUMER)
        fields = {"request_id": "g", "account_id": CONSUMER, "amount_micros": 1, field: value}
        error = await refused(w.accounts.Grant(accounts_pb.GrantRequest(**fields), timeout=30))
        assert error.metadata == {"darkbloom-field": field}


async def test_an_identity_key_earns_for_one_account_for_ever(url: str) -> None:
    async with world(url) as w:
        await w.people()
        await w.link(w.machine, PROVIDER)
        error = await refused(w.link(w.machine, CONSUMER))
        assert error.reason == reasons.ERROR_REASON_IDEMPOTENCY_CONFLICT
        stranger = accounts_pb.GetProviderLinkRequest(identity_key=P256Signer.generate().public)
        error = await refused(w.accounts.GetProviderLink(stranger, timeout=30))
        assert (error.status, error.reason) == (
            grpc.StatusCode.NOT_FOUND,
            reasons.ERROR_REASON_UNLINKED,
        )
        # With and without its first byte it is the same key.
        known = accounts_pb.GetProviderLinkRequest(identity_key=w.machine.public[1:])
        link = (await w.accounts.GetProviderLink(known, timeout=30)).link
        assert (link.account_id, link.identity_key) == (PROVIDER, w.machine.public)


async def test_an_account_lists_its_machines_page_by_page(url: str) -> None:
    async with world(url) as w:
        await w.people()
        machines = sorted([w.machine, *[P256Signer.generate() for _ in range(2)]], key=_public)
        for machine in machines:
            await w.link(machine, PROVIDER)
        await w.link(P256Signer.generate(), CONSUMER)

        found: list[bytes] = []
        token = ""
        for pages in (1, 2):
            page = await w.accounts.ListProviderLinks(
                accounts_pb.ListProviderLinksRequest(
                    account_id=PROVIDER, page={"page_size": 2, "page_token": token}
                ),
                timeout=30,
            )
            assert all(link.account_id == PROVIDER for link in page.links)
            found += [link.identity_key for link in page.links]
            token = page.next_page_token
            assert bool(token) is (pages == 1)

        assert found == [machine.public for machine in machines]
        nobody = accounts_pb.ListProviderLinksRequest(account_id="acct_nobody")
        assert not (await w.accounts.ListProviderLinks(nobody, timeout=30)).links
        odd = accounts_pb.ListProviderLinksRequest(
            account_id=PROVIDER, page={"page_token": "not hex"}
        )
        error = await refused(w.accounts.ListProviderLinks(odd, timeout=30))
        assert error.status is grpc.StatusCode.INVALID_ARGUMENT


def _public(machine: P256Signer) -> bytes:
    return machine.public


async def test_what_does_not_exist_is_not_found(url: str) -> None:
    async with world(url) as w:
        calls = (
            w.accounts.GetBalance(accounts_pb.GetBalanceRequest(account_id="acct_x"), timeout=30),
            w.link(w.machine, "acct_x"),
            w.key(b"secret"),
        )
        for call in calls:
            assert (await refused(call)).status is grpc.StatusCode.NOT_FOUND


async def test_an_account_is_created_once(url: str) -> None:
    async with world(url) as w:
        await asyncio.gather(*(w.account("acct_same") for _ in range(10)))
        assert await w.balance("acct_same") == (0, 0, 0)
        error = await refused(w.account("with spaces"))
        assert error.metadata == {"darkbloom-field": "account_id"}


async def test_prices_are_rows_in_force_and_setting_one_is_idempotent(url: str) -> None:
    async with world(url) as w:
        first = await w.price("one", 100, 200)
        assert await w.price("one", 100, 200) == first
        assert first.cache_read_micros == 50
        error = await refused(w.price("one", 101, 200))
        assert error.reason == reasons.ERROR_REASON_IDEMPOTENCY_CONFLICT

        later = prices_pb.SetPriceRequest(
            request_id="later",
            build="build-a",
            input_micros=7,
            output_micros=7,
            cache_read_micros=0,
        )
        later.effective_time.FromDatetime(w.clock.now() + timedelta(hours=1))
        await w.prices.SetPrice(later, timeout=30)
        listed = await w.prices.ListPrices(prices_pb.ListPricesRequest(), timeout=30)
        assert list(listed.prices) == [first]
        assert (listed.fallback.input_micros, listed.fallback.output_micros) == (50_000, 200_000)
        await w.clock.advance(3600)
        listed = await w.prices.ListPrices(prices_pb.ListPricesRequest(), timeout=30)
        assert [row.input_micros for row in listed.prices] == [7]


@pytest.mark.parametrize(
    "fields",
    [
        {"input_micros": 0},
        {"output_micros": -1},
        {"cache_read_micros": 101},
        {"cache_read_micros": -1},
        {"input_micros": 2**62},
        {"build": ""},
        {"build": "a b"},
    ],
)
async def test_a_malformed_price_names_its_field(url: str, fields: dict[str, Any]) -> None:
    async with world(url) as w:
        request = {
            "request_id": "p",
            "build": "b",
            "input_micros": 100,
            "output_micros": 100,
            **fields,
        }
        error = await refused(w.prices.SetPrice(prices_pb.SetPriceRequest(**request), timeout=30))
        assert error.metadata == {"darkbloom-field": next(iter(fields))}


async def test_another_replica_hears_of_a_price_and_a_revocation(url: str) -> None:
    async with world(url, poll_period_s=30) as here, world(url, poll_period_s=30) as there:
        await here.people()
        async with asyncio.timeout(30):
            while True:
                listed = await there.prices.ListPrices(prices_pb.ListPricesRequest(), timeout=30)
                if listed.prices:
                    break
        (result,) = await there.hold(there.order())
        assert result.hold.amount_micros == 2_000
