"""Amounts of money, and what counts beside them, as several tables say them."""

from collections.abc import Mapping

from darkbloom_edge.dialects.schemas.parts import (
    COUNT,
    INTEGER,
    STRING,
    Schema,
    array,
    nullable,
    obj,
    said,
    text,
    whole,
)

from darkbloom_gateway.openapi.operation import (
    CSV,
    JSON,
    PLAIN,
    Answer,
)
from darkbloom_gateway.openapi.people import TIME

MICROS = said(INTEGER, "micro-USD")
USD = said(text(pattern=r"^-?[0-9]+\.[0-9]{2,6}$"), "dollars as a decimal text")
DOLLARS = said(text(pattern=r"^[0-9]{1,9}(\.[0-9]{1,2})?$"), "dollars as a text, such as `10.00`")
TOKEN = {"next_page_token": said(STRING, "absent on the last page")}
_PRICE = whole(1, 10_000_000_000)
PRICE_BODY = obj(
    {"model": text(minLength=1, maxLength=200), "input_price": _PRICE, "output_price": _PRICE},
    {"cache_read_price": nullable(whole(0, 10_000_000_000))},
)
WORK: Mapping[str, Schema] = {
    "earnings_micro_usd": MICROS,
    "work_earnings_micro_usd": MICROS,
    "reward_earnings_micro_usd": MICROS,
    "tokens": COUNT,
    "jobs": COUNT,
}
SUMS: Mapping[str, Schema] = {
    "account_id": STRING,
    "available_balance_micro_usd": MICROS,
    "withdrawable_balance_micro_usd": MICROS,
    "maturing_balance_micro_usd": MICROS,
    "lifetime_micro_usd": MICROS,
    "lifetime_jobs": COUNT,
    "last_24h_micro_usd": MICROS,
    "last_24h_jobs": COUNT,
    "last_7d_micro_usd": MICROS,
    "last_7d_jobs": COUNT,
    "machines": array(obj({"machine_key": STRING, "name": STRING, **WORK}, {"linked_at": TIME})),
}


def rows(name: str, row: Schema) -> Mapping[int, Answer]:
    """Return the answers of a list that comes in pages, or whole as CSV."""
    page = obj({name: array(row)}, TOKEN)
    return {200: Answer("a page, or all that match as CSV", {JSON: page, CSV: PLAIN})}
