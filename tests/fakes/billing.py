"""A stand-in for billing: places holds, ends them once, remembers every order."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from datetime import timedelta

import grpc
from darkbloom.billing.v1 import account_pb2, ledger_pb2
from darkbloom.billing.v1 import account_service_pb2 as accounts
from darkbloom.billing.v1 import ledger_service_pb2 as ledger
from darkbloom.billing.v1 import price_service_pb2 as prices
from darkbloom.billing.v1.account_service_pb2_grpc import AccountServiceServicer
from darkbloom.billing.v1.ledger_service_pb2_grpc import LedgerServiceServicer
from darkbloom.billing.v1.price_service_pb2_grpc import PriceServiceServicer
from darkbloom.common.v1.error_reason_pb2 import ErrorReason
from darkbloom.common.v1.price_pb2 import PriceRow
from darkbloom_mesh.clock import Clock, SystemClock
from darkbloom_mesh.errors import UnauthenticatedError
from darkbloom_mesh.serve import Context


class FakeLedger(LedgerServiceServicer):
    """One settlement or release per request; a second end is LATE or REPLAYED."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self.away = False
        self.available_micros = 10_000_000
        self.price = PriceRow(price_id="price_1", input_micros=1_000_000, output_micros=2_000_000)
        self.rejections: deque[str] = deque()
        """Each takes one settlement."""
        self.orders: dict[str, ledger_pb2.HoldOrder] = {}
        self.extensions: list[ledger.ExtendHoldRequest] = []
        self.renewed: list[str] = []
        self.settlements: list[ledger_pb2.Settlement] = []
        self.releases: list[ledger_pb2.Release] = []
        self.receipts: list[ledger_pb2.ReceiptRecord] = []
        self.ended: dict[str, str] = {}
        self.batches: list[int] = []
        self._changed = asyncio.Condition()

    async def ending(self, request_id: str) -> str:
        """Wait for the end of a hold: `settled` or `released`."""
        async with self._changed:
            while request_id not in self.ended:
                await self._changed.wait()
        return self.ended[request_id]

    async def Hold(self, request: ledger.HoldRequest, context: Context) -> ledger.HoldResponse:
        await self._present(context)
        return ledger.HoldResponse(results=[self._hold(order) for order in request.orders])

    def _hold(self, order: ledger_pb2.HoldOrder) -> ledger_pb2.HoldResult:
        price = self.price
        amount = (
            order.prompt_bound * price.input_micros + order.output_bound * price.output_micros
        ) // 1_000_000 + 1
        if amount > self.available_micros:
            return ledger_pb2.HoldResult(
                request_id=order.request_id,
                refusal=ErrorReason.ERROR_REASON_INSUFFICIENT_FUNDS,
                required_micros=amount,
                available_micros=self.available_micros,
            )
        self.orders[order.request_id] = order
        hold = ledger_pb2.Hold(
            request_id=order.request_id,
            account_id=order.account_id,
            amount_micros=amount,
            price=price,
            prompt_bound=order.prompt_bound,
            output_bound=order.output_bound,
        )
        hold.price.build = order.build
        hold.expire_time.FromDatetime(self.clock.now() + timedelta(minutes=15))
        return ledger_pb2.HoldResult(request_id=order.request_id, hold=hold)

    async def ExtendHold(
        self, request: ledger.ExtendHoldRequest, context: Context
    ) -> ledger.ExtendHoldResponse:
        await self._present(context)
        self.extensions.append(request)
        return ledger.ExtendHoldResponse(hold=ledger_pb2.Hold(request_id=request.request_id))

    async def RenewHolds(
        self, request: ledger.RenewHoldsRequest, context: Context
    ) -> ledger.RenewHoldsResponse:
        await self._present(context)
        self.renewed.extend(request.request_ids)
        ended = [name for name in request.request_ids if name in self.ended]
        return ledger.RenewHoldsResponse(ended_request_ids=ended)

    async def SettleHolds(
        self, request: ledger.SettleHoldsRequest, context: Context
    ) -> ledger.SettleHoldsResponse:
        await self._present(context)
        self.batches.append(len(request.settlements))
        results = []
        for item in request.settlements:
            self.settlements.append(item)
            if self.rejections:
                rejection = self.rejections.popleft()
                results.append(_result(item.request_id, "REJECTED", rejection))
                continue
            results.append(await self._end(item.request_id, "settled"))
        return ledger.SettleHoldsResponse(results=results)

    async def ReleaseHolds(
        self, request: ledger.ReleaseHoldsRequest, context: Context
    ) -> ledger.ReleaseHoldsResponse:
        await self._present(context)
        self.releases.extend(request.releases)
        results = [await self._end(item.request_id, "released") for item in request.releases]
        return ledger.ReleaseHoldsResponse(results=results)

    async def RecordReceipts(
        self, request: ledger.RecordReceiptsRequest, context: Context
    ) -> ledger.RecordReceiptsResponse:
        await self._present(context)
        self.receipts.extend(request.records)
        return ledger.RecordReceiptsResponse(recorded=len(request.records))

    async def _end(self, request_id: str, end: str) -> ledger_pb2.SettlementResult:
        async with self._changed:
            first = request_id not in self.ended
            earlier = self.ended.setdefault(request_id, end)
            self._changed.notify_all()
        if first:
            return _result(request_id, end.upper())
        return _result(request_id, "REPLAYED" if earlier == end else "LATE")

    async def _present(self, context: Context) -> None:
        if self.away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "billing is away")


class FakeAccounts(AccountServiceServicer):
    """Keys by hash, links by identity key."""

    def __init__(self) -> None:
        self.away = False
        self.links: dict[bytes, str] = {}
        self.everybody_linked_to = "acct_provider"
        """Account of machines that `links` does not name; empty: they are not linked."""
        self.keys: dict[bytes, account_pb2.ApiKey] = {}
        self.balance = accounts.GetBalanceResponse(balance_micros=10_000_000)
        self.usage: list[ledger_pb2.Usage] = []
        self.generation = 1
        self._changes: list[accounts.WatchKeysResponse] = []
        self._changed = asyncio.Condition()

    async def revoke(self, key_hash: bytes) -> None:
        """Revoke a key and tell every watcher."""
        self.keys[key_hash].revoked = True
        self.generation += 1
        event = accounts.WatchKeysResponse(
            generation=self.generation,
            changed=accounts.KeyChanged(key_hash=key_hash, key_id=self.keys[key_hash].key_id),
        )
        async with self._changed:
            self._changes.append(event)
            self._changed.notify_all()

    async def ResolveKey(
        self, request: accounts.ResolveKeyRequest, context: Context
    ) -> accounts.ResolveKeyResponse:
        await self._present(context)
        key = self.keys.get(request.key_hash)
        if key is None:
            raise UnauthenticatedError(
                "api key is unknown", reason=ErrorReason.ERROR_REASON_KEY_UNKNOWN
            )
        if key.revoked:
            raise UnauthenticatedError(
                "api key was revoked", reason=ErrorReason.ERROR_REASON_KEY_REVOKED
            )
        return accounts.ResolveKeyResponse(key=key, generation=self.generation)

    async def WatchKeys(
        self, request: accounts.WatchKeysRequest, context: Context
    ) -> AsyncIterator[accounts.WatchKeysResponse]:
        seen = len(self._changes)
        yield accounts.WatchKeysResponse(generation=self.generation, reset=accounts.KeysReset())
        while True:
            async with self._changed:
                while len(self._changes) <= seen:
                    await self._changed.wait()
            for event in self._changes[seen:]:
                seen += 1
                yield event

    async def GetProviderLink(
        self, request: accounts.GetProviderLinkRequest, context: Context
    ) -> accounts.GetProviderLinkResponse:
        await self._present(context)
        account_id = self.links.get(request.identity_key, self.everybody_linked_to)
        if not account_id:
            await context.abort(grpc.StatusCode.NOT_FOUND, "not linked")
        return accounts.GetProviderLinkResponse(
            link=account_pb2.ProviderLink(identity_key=request.identity_key, account_id=account_id)
        )

    async def ListProviderLinks(
        self, request: accounts.ListProviderLinksRequest, context: Context
    ) -> accounts.ListProviderLinksResponse:
        await self._present(context)
        return accounts.ListProviderLinksResponse(
            links=[
                account_pb2.ProviderLink(identity_key=key, account_id=owner)
                for key, owner in sorted(self.links.items())
                if owner == request.account_id
            ]
        )

    async def GetBalance(
        self, request: accounts.GetBalanceRequest, context: Context
    ) -> accounts.GetBalanceResponse:
        await self._present(context)
        return self.balance

    async def ListUsage(
        self, request: accounts.ListUsageRequest, context: Context
    ) -> accounts.ListUsageResponse:
        await self._present(context)
        return accounts.ListUsageResponse(usage=self.usage)

    async def _present(self, context: Context) -> None:
        if self.away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "billing is away")


class FakePrices(PriceServiceServicer):
    """Providers' own prices; every change goes to every watcher."""

    def __init__(self) -> None:
        self.own: dict[tuple[str, str], PriceRow] = {}
        self._changed = asyncio.Condition()

    async def set(self, account_id: str, row: PriceRow) -> None:
        """Give an account a price of its own."""
        async with self._changed:
            self.own[account_id, row.build] = row
            self._changed.notify_all()

    async def WatchOwnPrices(
        self, request: prices.WatchOwnPricesRequest, context: Context
    ) -> AsyncIterator[prices.WatchOwnPricesResponse]:
        while True:
            async with self._changed:
                rows = [
                    prices.OwnPrice(account_id=account_id, price=row)
                    for (account_id, _), row in self.own.items()
                ]
            yield prices.WatchOwnPricesResponse(prices=rows, complete=True)
            async with self._changed:
                while len(self.own) == len(rows):
                    await self._changed.wait()


def _result(request_id: str, status: str, rejection: str = "") -> ledger_pb2.SettlementResult:
    value = ledger_pb2.SettlementStatus.Value(f"SETTLEMENT_STATUS_{status}")
    return ledger_pb2.SettlementResult(request_id=request_id, status=value, rejection=rejection)
