"""Messages to values and back. Total: whatever arrives, only InvalidArgumentError leaves."""

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeVar

from darkbloom.billing.v1 import account_pb2, ledger_pb2, price_service_pb2
from darkbloom.common.v1 import page_pb2, price_pb2
from darkbloom.common.v1.error_reason_pb2 import ErrorReason
from darkbloom_edge.errors import EdgeError
from darkbloom_edge.ids import id_bytes
from darkbloom_edge.signatures import parse_p256_public, to_base64
from darkbloom_mesh.errors import InvalidArgumentError
from google.protobuf.timestamp_pb2 import Timestamp

from darkbloom_billing import model
from darkbloom_billing.batch import MAX_ROWS
from darkbloom_billing.pricing import MAX_PRICE_MICROS, MAX_TOKENS, default_cache_read

MAX_MICROS = 10**15
"""Largest amount of one command: 1,000,000,000 USD."""
_HASH_BYTES = 32
_PAGE_DEFAULT = 100
_PAGE_MAX = 1000
_TOKEN = re.compile(r"[\x21-\x7e]{1,256}")
_ACCOUNT = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_TEXT_MAX = 200
_YEARS = (1970, 9999)


class _Row(Protocol):
    """A row of a history."""

    @property
    def request_id(self) -> str: ...
    @property
    def settled_at(self) -> datetime: ...


T = TypeVar("T")


def rows(items: Sequence[T], field: str, *, at_least: int = 0) -> Sequence[T]:
    """Return a batch unchanged if it has an allowed size."""
    if not at_least <= len(items) <= MAX_ROWS:
        raise InvalidArgumentError(f"between {at_least} and {MAX_ROWS} items are allowed", field)
    return items


def order(message: ledger_pb2.HoldOrder) -> model.HoldOrder:
    """Read an order; its caller answers the error in the order's own result."""
    return model.HoldOrder(
        request_id=request_id(message.request_id),
        account_id=token(message.account_id, "account_id"),
        key_id=token(message.key_id, "key_id") if message.key_id else "",
        build=token(message.build, "build"),
        prompt_bound=between(message.prompt_bound, 1, MAX_TOKENS, "prompt_bound"),
        output_bound=between(message.output_bound, 1, MAX_TOKENS, "output_bound"),
        requested_model=token(message.requested_model, "requested_model"),
        fallback_build=(
            token(message.fallback_build, "fallback_build") if message.fallback_build else ""
        ),
    )


def hold_result(outcome: model.HoldOutcome) -> ledger_pb2.HoldResult:
    """Write what became of an order."""
    if outcome.hold is not None:
        return ledger_pb2.HoldResult(request_id=outcome.request_id, hold=hold(outcome.hold))
    name = f"ERROR_REASON_{outcome.refusal.name}" if outcome.refusal else None
    return ledger_pb2.HoldResult(
        request_id=outcome.request_id,
        refusal=ErrorReason.Value(name) if name else ErrorReason.ERROR_REASON_UNSPECIFIED,
        required_micros=outcome.required_micros,
        available_micros=outcome.available_micros,
    )


def hold(value: model.Hold) -> ledger_pb2.Hold:
    """Write a hold."""
    return ledger_pb2.Hold(
        request_id=value.request_id,
        account_id=value.account_id,
        amount_micros=value.amount_micros,
        price=price(value.price),
        expire_time=timestamp(value.expires_at),
        prompt_bound=value.prompt_bound,
        output_bound=value.output_bound,
    )


def price(value: model.PriceRow) -> price_pb2.PriceRow:
    """Write a price row."""
    return price_pb2.PriceRow(
        price_id=value.price_id,
        build=value.build,
        input_micros=value.input_micros,
        output_micros=value.output_micros,
        cache_read_micros=value.cache_read_micros,
        minimum_charge_micros=value.minimum_charge_micros,
    )


def price_row(message: price_pb2.PriceRow) -> model.PriceRow:
    """Read a price row; whether it is one of ours is for the ledger to say."""
    return model.PriceRow(
        price_id=token(message.price_id, "price.price_id"),
        build=text(message.build, "price.build"),
        input_micros=message.input_micros,
        output_micros=message.output_micros,
        cache_read_micros=message.cache_read_micros,
        minimum_charge_micros=message.minimum_charge_micros,
    )


def new_price(message: price_service_pb2.SetPriceRequest) -> model.NewPrice:
    """Read a price to set; cached input costs half where nothing else is said."""
    input_micros = between(message.input_micros, 1, MAX_PRICE_MICROS, "input_micros")
    cache_read = (
        between(message.cache_read_micros, 0, input_micros, "cache_read_micros")
        if message.HasField("cache_read_micros")
        else default_cache_read(input_micros)
    )
    effective = message.effective_time if message.HasField("effective_time") else None
    return model.NewPrice(
        request_id=token(message.request_id, "request_id"),
        build=token(message.build, "build"),
        input_micros=input_micros,
        output_micros=between(message.output_micros, 1, MAX_PRICE_MICROS, "output_micros"),
        cache_read_micros=cache_read,
        effective_at=moment(effective, "effective_time") if effective is not None else None,
        account_id=account_id(message.account_id) if message.account_id else "",
        cache_read_defaulted=not message.HasField("cache_read_micros"),
    )


def quote(value: model.Quote) -> price_service_pb2.QuoteResponse:
    """Write a quote."""
    return price_service_pb2.QuoteResponse(
        price=price(value.price),
        amount_micros=value.amount_micros,
        available_micros=value.available_micros,
        max_affordable_tokens=value.max_affordable_tokens,
    )


def own_price_changes(
    changed: Sequence[model.PriceRow], ended: Sequence[tuple[str, str]]
) -> Iterator[price_service_pb2.WatchOwnPricesResponse]:
    """Write what changed in providers' own prices, in messages of a bounded size."""
    for start in range(0, len(changed), _PAGE_MAX):
        rows = changed[start : start + _PAGE_MAX]
        yield price_service_pb2.WatchOwnPricesResponse(
            prices=[
                price_service_pb2.OwnPrice(account_id=row.account_id, price=price(row))
                for row in rows
            ]
        )
    for start in range(0, len(ended), _PAGE_MAX):
        pairs = ended[start : start + _PAGE_MAX]
        yield price_service_pb2.WatchOwnPricesResponse(
            ended=[
                price_service_pb2.OwnPriceEnd(account_id=owner, build=build)
                for owner, build in pairs
            ]
        )
    yield price_service_pb2.WatchOwnPricesResponse(complete=True)


def settlement(message: ledger_pb2.Settlement) -> model.Settlement:
    """Read a settlement; nothing in it is believed yet."""
    opened = message.opened
    return model.Settlement(
        request_id=message.request_id,
        attempt_id=message.attempt_id,
        verdict=signed(message.verdict),
        terminal=signed(message.terminal) if message.HasField("terminal") else None,
        opened=model.Opened(
            frames=max(0, opened.frames),
            prompt_tokens=max(0, opened.prompt_tokens),
            completion_tokens=max(0, opened.completion_tokens),
            cached_tokens=max(0, opened.cached_tokens),
        ),
        price_id=message.price_id,
    )


def signed(message: price_pb2.SignedDocument) -> model.Signed:
    """Read a signed document, bytes as they are."""
    return model.Signed(
        document=message.document, signature=message.signature, key_id=message.key_id
    )


def release(message: ledger_pb2.Release) -> tuple[str, str]:
    """Read a release as (request id, reason word)."""
    reasons = ledger_pb2.ReleaseReason
    known = message.reason in reasons.values()
    name = reasons.Name(message.reason) if known else "RELEASE_REASON_UNSPECIFIED"
    word = name.removeprefix("RELEASE_REASON_").lower()
    return request_id(message.request_id), word


def settlement_result(outcome: model.EndOutcome) -> ledger_pb2.SettlementResult:
    """Write what became of a settlement or a release."""
    return ledger_pb2.SettlementResult(
        request_id=outcome.request_id,
        status=ledger_pb2.SettlementStatus.Value(f"SETTLEMENT_STATUS_{outcome.status.name}"),
        charge_micros=outcome.charge_micros,
        provider_credit_micros=outcome.provider_credit_micros,
        rejection=outcome.rejection.value if outcome.rejection else "",
        prompt_tokens=outcome.prompt_tokens,
        completion_tokens=outcome.completion_tokens,
    )


def account(value: model.Account) -> account_pb2.Account:
    """Write an account."""
    return account_pb2.Account(
        account_id=value.account_id,
        display_name=value.display_name,
        role=value.role,
        create_time=timestamp(value.created_at),
    )


def link(value: model.ProviderLink) -> account_pb2.ProviderLink:
    """Write a provider link."""
    return account_pb2.ProviderLink(
        identity_key=value.identity_key,
        account_id=value.account_id,
        name=value.name,
        link_time=timestamp(value.linked_at),
    )


def usage(row: model.UsageRow) -> ledger_pb2.Usage:
    """Write a row of usage."""
    return ledger_pb2.Usage(
        request_id=row.request_id,
        attempt_id=row.attempt_id,
        model=row.model,
        build=row.build,
        prompt_tokens=row.prompt_tokens,
        cached_tokens=row.cached_tokens,
        completion_tokens=row.completion_tokens,
        charge_micros=row.charge_micros,
        settle_time=timestamp(row.settled_at),
        outcome=row.outcome,
        key_id=row.key_id,
    )


def earning(row: model.EarningRow) -> ledger_pb2.Earning:
    """Write a row of earnings."""
    return ledger_pb2.Earning(
        request_id=row.request_id,
        build=row.build,
        amount_micros=row.amount_micros,
        prompt_tokens=row.prompt_tokens,
        completion_tokens=row.completion_tokens,
        settle_time=timestamp(row.settled_at),
        identity_key=to_base64(row.identity_key),
    )


def page_size(request: page_pb2.PageRequest) -> int:
    """Read how many rows are wanted."""
    if request.page_size < 0:
        raise InvalidArgumentError("page size is negative", "page.page_size")
    return min(request.page_size or _PAGE_DEFAULT, _PAGE_MAX)


def cursor(request: page_pb2.PageRequest) -> model.Cursor | None:
    """Read where the page begins; None: at the newest row."""
    if not request.page_token:
        return None
    try:
        micros, _, last = base64.urlsafe_b64decode(request.page_token).decode().partition(":")
        at = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(micros))
        id_bytes(last, "req")
    except (binascii.Error, ValueError, OverflowError, EdgeError):
        raise InvalidArgumentError("page token is not one of ours", "page.page_token") from None
    return model.Cursor(settled_at=at, request_id=last)


def machine_cursor(request: page_pb2.PageRequest) -> bytes:
    """Read after which identity key the page begins; empty: at the first."""
    try:
        return bytes.fromhex(request.page_token)
    except ValueError:
        raise InvalidArgumentError("page token is not one of ours", "page.page_token") from None


def page(
    found: Sequence[T], size: int, cursor_of: Callable[[T], model.Cursor]
) -> tuple[Sequence[T], str]:
    """Cut a page out of one row more than it; return it and the token of the next."""
    if len(found) <= size:
        return found, ""
    last = cursor_of(found[size - 1])
    micros = (last.settled_at - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)
    return found[:size], base64.urlsafe_b64encode(f"{micros}:{last.request_id}".encode()).decode()


def cursor_of(row: _Row) -> model.Cursor:
    """Return the place of a row in its history."""
    return model.Cursor(settled_at=row.settled_at, request_id=row.request_id)


def request_id(value: str) -> str:
    """Return a request id that has the one allowed form."""
    try:
        id_bytes(value, "req")
    except EdgeError:
        raise InvalidArgumentError("not a request id", "request_id") from None
    return value


def account_id(value: str) -> str:
    """Return the id of a new account: it becomes a part of ledger paths."""
    if _ACCOUNT.fullmatch(value) is None:
        raise InvalidArgumentError("not an account id", "account_id")
    return value


def identity_key(value: bytes) -> bytes:
    """Return an identity key as its one form of 65 bytes."""
    try:
        return parse_p256_public(value)
    except EdgeError:
        raise InvalidArgumentError("not a p-256 public key", "identity_key") from None


def key_hash(value: bytes) -> bytes:
    """Return a hash of 32 bytes."""
    if len(value) != _HASH_BYTES:
        raise InvalidArgumentError("not a sha-256 hash", "key_hash")
    return value


def token(value: str, field: str) -> str:
    """Return an id: printable ASCII without spaces, 1 to 256 characters."""
    if _TOKEN.fullmatch(value) is None:
        raise InvalidArgumentError("must be 1 to 256 printable characters without spaces", field)
    return value


def text(value: str, field: str) -> str:
    """Return a short free text; PostgreSQL cannot keep a zero character."""
    if len(value) > _TEXT_MAX or "\x00" in value:
        raise InvalidArgumentError(f"must be a text of at most {_TEXT_MAX} characters", field)
    return value


def between(value: int, low: int, high: int, field: str) -> int:
    """Return a number in its range."""
    if not low <= value <= high:
        raise InvalidArgumentError(f"must be between {low} and {high}", field)
    return value


def moment(value: Timestamp, field: str) -> datetime:
    """Return a time in UTC."""
    try:
        at = value.ToDatetime(UTC)
    except (ValueError, OverflowError):
        raise InvalidArgumentError("not a time", field) from None
    if not _YEARS[0] <= at.year <= _YEARS[1]:
        raise InvalidArgumentError("not a time of this era", field)
    return at


def timestamp(value: datetime) -> Timestamp:
    """Write a time."""
    stamp = Timestamp()
    stamp.FromDatetime(value)
    return stamp
