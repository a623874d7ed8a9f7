"""Between rows, JSON bodies and values."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from darkbloom_billing.model import Hold, HoldOrder, PriceRow


def price_body(price: PriceRow) -> dict[str, Any]:
    """Return a price snapshot as it is kept in an event."""
    return {
        "price_id": price.price_id,
        "build": price.build,
        "input_micros": price.input_micros,
        "output_micros": price.output_micros,
        "cache_read_micros": price.cache_read_micros,
        "minimum_charge_micros": price.minimum_charge_micros,
        "account_id": price.account_id,
    }


def price_row(body: Mapping[str, Any]) -> PriceRow:
    """Return the price of a snapshot or a row."""
    return PriceRow(
        price_id=body["price_id"],
        build=body["build"],
        input_micros=body["input_micros"],
        output_micros=body["output_micros"],
        cache_read_micros=body["cache_read_micros"],
        minimum_charge_micros=body["minimum_charge_micros"],
        # Snapshots from before providers had prices of their own name nobody.
        account_id=body.get("account_id", ""),
    )


def order_body(order: HoldOrder, price: PriceRow, amount: int) -> str:
    """Return the body of a hold's event."""
    return json.dumps(
        {
            "account_id": order.account_id,
            "key_id": order.key_id,
            "build": order.build,
            "fallback_build": order.fallback_build,
            "requested_model": order.requested_model,
            "prompt_bound": order.prompt_bound,
            "output_bound": order.output_bound,
            "price": price_body(price),
            "amount": amount,
        }
    )


def order_fields(order: HoldOrder) -> tuple[str, ...]:
    """Return what makes two orders the same; the price is not part, it may change meanwhile."""
    return (
        order.request_id,
        order.account_id,
        order.key_id,
        order.build,
        str(order.prompt_bound),
        str(order.output_bound),
        order.requested_model,
        # Only where there is one: repeats of older orders stay the same.
        *((order.fallback_build,) if order.fallback_build else ()),
    )


def new_hold(order: HoldOrder, price: PriceRow, amount: int, expires_at: datetime) -> Hold:
    """Return the hold that an order has just been given."""
    return Hold(
        request_id=order.request_id,
        account_id=order.account_id,
        amount_micros=amount,
        price=price,
        expires_at=expires_at,
        prompt_bound=order.prompt_bound,
        output_bound=order.output_bound,
    )


def held(request_id: str, body: Mapping[str, Any], expires_at: datetime) -> Hold:
    """Return a hold from the body of its event."""
    return Hold(
        request_id=request_id,
        account_id=body["account_id"],
        amount_micros=body["amount"],
        price=price_row(body["price"]),
        expires_at=expires_at,
        prompt_bound=body["prompt_bound"],
        output_bound=body["output_bound"],
    )
