"""Billing on the wire: translate, delegate, translate back.

The servicers hold no resource of their own. Errors are those of the domain and leave as statuses of
the mesh. In batches, what is wrong with one item is said in the result of that item.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from darkbloom.billing.v1 import account_service_pb2 as accounts_pb
from darkbloom.billing.v1 import ledger_pb2
from darkbloom.billing.v1 import ledger_service_pb2 as ledger_pb
from darkbloom.billing.v1 import price_service_pb2 as prices_pb
from darkbloom.billing.v1.account_service_pb2_grpc import AccountServiceServicer
from darkbloom.billing.v1.ledger_service_pb2_grpc import LedgerServiceServicer
from darkbloom.billing.v1.price_service_pb2_grpc import PriceServiceServicer
from darkbloom_mesh import tracing
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import ForbiddenError, InvalidArgumentError
from darkbloom_mesh.interceptors import Context

from darkbloom_billing import convert, convert_keys, model
from darkbloom_billing.accounts import Accounts
from darkbloom_billing.errors import refusal_error
from darkbloom_billing.key_feed import KeyFeed
from darkbloom_billing.ledger import Ledger
from darkbloom_billing.ports import AccountStore, GrantDesk
from darkbloom_billing.prices import Prices, changes
from darkbloom_billing.pricing import MAX_TOKENS, fallback
from darkbloom_billing.receipts import Handed, Receipts

MAX_EXTENSIONS = 1000


class LedgerServer(LedgerServiceServicer):
    """Holds and their ends."""

    def __init__(self, ledger: Ledger, receipts: Receipts) -> None:
        self._ledger = ledger
        self._receipts = receipts

    async def Hold(
        self, request: ledger_pb.HoldRequest, context: Context
    ) -> ledger_pb.HoldResponse:
        """Reserve the worst case of requests."""
        results: dict[int, model.HoldOutcome] = {}
        orders: dict[int, model.HoldOrder] = {}
        for index, message in enumerate(convert.rows(request.orders, "orders", at_least=1)):
            try:
                orders[index] = convert.order(message)
            except InvalidArgumentError:
                results[index] = model.HoldOutcome(
                    request_id=message.request_id, refusal=model.HoldRefusal.INVALID_ARGUMENT
                )
        with tracing.joint("billing.reserve", (order.traceparent for order in request.orders)):
            placed = await self._ledger.hold(list(orders.values()))
        results.update(zip(orders, placed, strict=True))
        ordered = (results[index] for index in range(len(request.orders)))
        return ledger_pb.HoldResponse(results=map(convert.hold_result, ordered))

    async def ExtendHold(
        self, request: ledger_pb.ExtendHoldRequest, context: Context
    ) -> ledger_pb.ExtendHoldResponse:
        """Raise a hold to a dearer price row, or replace what earlier ones added."""
        outcome = await self._ledger.extend(
            convert.request_id(request.request_id),
            convert.between(request.extension, 1, MAX_EXTENSIONS, "extension"),
            convert.price_row(request.price),
            replaces=request.replaces,
        )
        if outcome.hold is None:
            raise refusal_error(outcome)
        return ledger_pb.ExtendHoldResponse(hold=convert.hold(outcome.hold))

    async def RenewHolds(
        self, request: ledger_pb.RenewHoldsRequest, context: Context
    ) -> ledger_pb.RenewHoldsResponse:
        """Push the lease of running holds out."""
        lease_s = request.lease.seconds + request.lease.nanos / 1e9
        if lease_s <= 0:
            raise InvalidArgumentError("must be above 0", "lease")
        ids = [convert.request_id(value) for value in request.request_ids]
        until, ended = await self._ledger.renew(ids, lease_s)
        return ledger_pb.RenewHoldsResponse(
            expire_time=convert.timestamp(until), ended_request_ids=ended
        )

    async def SettleHolds(
        self, request: ledger_pb.SettleHoldsRequest, context: Context
    ) -> ledger_pb.SettleHoldsResponse:
        """End holds by paying for what was delivered."""
        settlements = convert.rows(request.settlements, "settlements")
        with tracing.joint("billing.settle", (item.traceparent for item in settlements)):
            outcomes = await self._ledger.settle([convert.settlement(item) for item in settlements])
        return ledger_pb.SettleHoldsResponse(results=map(convert.settlement_result, outcomes))

    async def ReleaseHolds(
        self, request: ledger_pb.ReleaseHoldsRequest, context: Context
    ) -> ledger_pb.ReleaseHoldsResponse:
        """End holds without a charge."""
        results: dict[int, ledger_pb2.SettlementResult] = {}
        releases: dict[int, tuple[str, str]] = {}
        for index, message in enumerate(convert.rows(request.releases, "releases")):
            try:
                releases[index] = convert.release(message)
            except InvalidArgumentError:
                results[index] = ledger_pb2.SettlementResult(
                    request_id=message.request_id,
                    status=ledger_pb2.SETTLEMENT_STATUS_REJECTED,
                    rejection=model.Rejection.IDS.value,
                )
        ended = await self._ledger.release(list(releases.values()))
        results.update(zip(releases, map(convert.settlement_result, ended), strict=True))
        ordered = [results[index] for index in range(len(request.releases))]
        return ledger_pb.ReleaseHoldsResponse(results=ordered)

    async def RecordReceipts(
        self, request: ledger_pb.RecordReceiptsRequest, context: Context
    ) -> ledger_pb.RecordReceiptsResponse:
        """Keep the gateway's countersigned records."""
        records = [
            Handed(
                record.request_id,
                convert.signed(record.countersign),
                convert.signed(record.terminal) if record.HasField("terminal") else None,
                convert.signed(record.verdict) if record.HasField("verdict") else None,
                record.identity_key,
                record.free_account_id,
            )
            for record in request.records
        ]
        return ledger_pb.RecordReceiptsResponse(recorded=await self._receipts.record(records))


def require_development(*, allowed: bool) -> None:
    """Refuse what tools may do on a development mesh and nobody in production.

    Whoever holds the mesh token, such as a router that was broken into, must not hand out money,
    name payees or set the platform's prices; operators and proofs have doors of their own.

    Raises:
        ForbiddenError: It is production.
    """
    if not allowed:
        raise ForbiddenError("only a development mesh may do this")


class AccountServer(AccountServiceServicer):
    """Accounts, keys, links, balances and histories."""

    def __init__(
        self,
        accounts: Accounts,
        store: AccountStore,
        feed: KeyFeed,
        grants: GrantDesk,
        *,
        heartbeat_s: float,
        development: bool,
    ) -> None:
        self._development = development
        self._accounts = accounts
        self._grants = grants
        self._store = store
        self._feed = feed
        self._heartbeat_s = heartbeat_s

    async def ResolveKey(
        self, request: accounts_pb.ResolveKeyRequest, context: Context
    ) -> accounts_pb.ResolveKeyResponse:
        """Return the record behind a presented key."""
        key, generation = await self._accounts.resolve_key(convert.key_hash(request.key_hash))
        return accounts_pb.ResolveKeyResponse(key=convert_keys.key(key), generation=generation)

    async def WatchKeys(
        self, request: accounts_pb.WatchKeysRequest, context: Context
    ) -> AsyncIterator[accounts_pb.WatchKeysResponse]:
        """Send key changes as they commit; the stream ends when this replica drains."""
        with self._feed.watch() as watch:
            reset = accounts_pb.KeysReset()
            yield accounts_pb.WatchKeysResponse(generation=watch.generation, reset=reset)
            while not watch.ended:
                changes = await watch.take(self._heartbeat_s)
                if changes is None:
                    yield accounts_pb.WatchKeysResponse(generation=watch.generation, reset=reset)
                    continue
                for change in changes:
                    yield convert_keys.key_change(change)
                if not changes:
                    yield accounts_pb.WatchKeysResponse(
                        generation=watch.generation, heartbeat=accounts_pb.KeysHeartbeat()
                    )

    async def CreateAccount(
        self, request: accounts_pb.CreateAccountRequest, context: Context
    ) -> accounts_pb.CreateAccountResponse:
        """Create an account."""
        account = await self._accounts.create(
            convert.account_id(request.account_id),
            convert.text(request.display_name, "display_name"),
        )
        return accounts_pb.CreateAccountResponse(account=convert.account(account))

    async def CreateKey(
        self, request: accounts_pb.CreateKeyRequest, context: Context
    ) -> accounts_pb.CreateKeyResponse:
        """Create an API key."""
        key = await self._accounts.create_key(convert_keys.new_key(request))
        return accounts_pb.CreateKeyResponse(key=convert_keys.key(key))

    async def RevokeKey(
        self, request: accounts_pb.RevokeKeyRequest, context: Context
    ) -> accounts_pb.RevokeKeyResponse:
        """Revoke an API key."""
        key = await self._accounts.revoke_key(convert.token(request.key_id, "key_id"))
        return accounts_pb.RevokeKeyResponse(key=convert_keys.key(key))

    async def GetBalance(
        self, request: accounts_pb.GetBalanceRequest, context: Context
    ) -> accounts_pb.GetBalanceResponse:
        """Return the money of an account."""
        balance = await self._accounts.balance(convert.token(request.account_id, "account_id"))
        return accounts_pb.GetBalanceResponse(
            balance_micros=balance.available_micros,
            withdrawable_micros=balance.earned_micros,
            held_micros=balance.held_micros,
            maturing_micros=balance.maturing_micros,
            debt_micros=balance.debt_micros,
            frozen=balance.frozen,
        )

    async def ListUsage(
        self, request: accounts_pb.ListUsageRequest, context: Context
    ) -> accounts_pb.ListUsageResponse:
        """Return a page of usage."""
        size = convert.page_size(request.page)
        found = await self._store.usage(
            convert.token(request.account_id, "account_id"),
            limit=size + 1,
            after=convert.cursor(request.page),
        )
        page, following = convert.page(found, size, convert.cursor_of)
        return accounts_pb.ListUsageResponse(
            usage=map(convert.usage, page), next_page_token=following
        )

    async def ListEarnings(
        self, request: accounts_pb.ListEarningsRequest, context: Context
    ) -> accounts_pb.ListEarningsResponse:
        """Return a page of earnings."""
        size = convert.page_size(request.page)
        found = await self._store.earnings(
            convert.token(request.account_id, "account_id"),
            limit=size + 1,
            after=convert.cursor(request.page),
        )
        page, following = convert.page(found, size, convert.cursor_of)
        return accounts_pb.ListEarningsResponse(
            earnings=map(convert.earning, page), next_page_token=following
        )

    async def LinkProvider(
        self, request: accounts_pb.LinkProviderRequest, context: Context
    ) -> accounts_pb.LinkProviderResponse:
        """Link a machine to the account that earns, without a proof of its key."""
        require_development(allowed=self._development)
        link = await self._accounts.link(
            convert.identity_key(request.identity_key),
            convert.token(request.account_id, "account_id"),
            convert.text(request.name, "name"),
        )
        return accounts_pb.LinkProviderResponse(link=convert.link(link))

    async def GetProviderLink(
        self, request: accounts_pb.GetProviderLinkRequest, context: Context
    ) -> accounts_pb.GetProviderLinkResponse:
        """Return the account of a machine."""
        link = await self._accounts.provider_link(convert.identity_key(request.identity_key))
        return accounts_pb.GetProviderLinkResponse(link=convert.link(link))

    async def ListProviderLinks(
        self, request: accounts_pb.ListProviderLinksRequest, context: Context
    ) -> accounts_pb.ListProviderLinksResponse:
        """Return a page of an account's machines."""
        size = convert.page_size(request.page)
        found = await self._accounts.provider_links(
            convert.token(request.account_id, "account_id"),
            limit=size + 1,
            after=convert.machine_cursor(request.page),
        )
        following = found[size - 1].identity_key.hex() if len(found) > size else ""
        return accounts_pb.ListProviderLinksResponse(
            links=map(convert.link, found[:size]), next_page_token=following
        )

    async def Grant(
        self, request: accounts_pb.GrantRequest, context: Context
    ) -> accounts_pb.GrantResponse:
        """Put promotional money on an account."""
        require_development(allowed=self._development)
        balance_micros = await self._grants.grant(
            convert.token(request.request_id, "request_id"),
            convert.token(request.account_id, "account_id"),
            convert.between(request.amount_micros, 1, convert.MAX_MICROS, "amount_micros"),
            convert.text(request.note, "note"),
        )
        return accounts_pb.GrantResponse(balance_micros=balance_micros)


class PriceServer(PriceServiceServicer):
    """Prices of the platform and of providers; quotes from memory."""

    def __init__(
        self,
        prices: Prices,
        accounts: Accounts,
        clock: Clock,
        *,
        heartbeat_s: float,
        development: bool,
    ) -> None:
        self._development = development
        self._prices = prices
        self._accounts = accounts
        self._clock = clock
        self._heartbeat_s = heartbeat_s

    async def ListPrices(
        self, request: prices_pb.ListPricesRequest, context: Context
    ) -> prices_pb.ListPricesResponse:
        """Return the rows in force."""
        current = self._prices.book.current(self._clock.now())
        return prices_pb.ListPricesResponse(
            prices=map(convert.price, current), fallback=convert.price(fallback(""))
        )

    async def ListOwnPrices(
        self, request: prices_pb.ListOwnPricesRequest, context: Context
    ) -> prices_pb.ListOwnPricesResponse:
        """Return a provider's own rows in force."""
        rows = self._prices.own(convert.account_id(request.account_id))
        return prices_pb.ListOwnPricesResponse(prices=map(convert.price, rows))

    async def SetPrice(
        self, request: prices_pb.SetPriceRequest, context: Context
    ) -> prices_pb.SetPriceResponse:
        """Set the price of a build; the platform's only in development, without an operator."""
        require_development(allowed=self._development or bool(request.account_id))
        version = await self._prices.set_price(convert.new_price(request))
        return prices_pb.SetPriceResponse(price=convert.price(version.row))

    async def DeletePrice(
        self, request: prices_pb.DeletePriceRequest, context: Context
    ) -> prices_pb.DeletePriceResponse:
        """Take an own price back."""
        await self._prices.end_price(
            convert.token(request.request_id, "request_id"),
            convert.account_id(request.account_id),
            convert.token(request.build, "build"),
        )
        return prices_pb.DeletePriceResponse()

    async def Quote(
        self, request: prices_pb.QuoteRequest, context: Context
    ) -> prices_pb.QuoteResponse:
        """Say what a request may cost, and how far the money reaches."""
        account_id = convert.token(request.account_id, "account_id")
        available = (
            request.available_micros
            if request.HasField("available_micros")
            else (await self._accounts.balance(account_id)).available_micros
        )
        quoted = self._prices.quote(
            account_id,
            convert.token(request.build, "build"),
            prompt_bound=convert.between(request.prompt_bound, 1, MAX_TOKENS, "prompt_bound"),
            output_bound=convert.between(request.output_bound, 1, MAX_TOKENS, "output_bound"),
            available=available,
        )
        return convert.quote(quoted)

    async def WatchOwnPrices(
        self, request: prices_pb.WatchOwnPricesRequest, context: Context
    ) -> AsyncIterator[prices_pb.WatchOwnPricesResponse]:
        """Send own prices, then what changes; the stream ends when this replica drains."""
        known: dict[tuple[str, str], model.PriceRow] = {}
        with self._prices.watching():
            while not self._prices.closed:
                ticket, current = self._prices.ticket(), self._prices.own_rows()
                for message in convert.own_price_changes(*changes(known, current)):
                    yield message
                known = current
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._heartbeat_s):
                        await ticket.wait()
