"""Whatever arrives, only InvalidArgumentError leaves."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from darkbloom.billing.v1 import account_service_pb2, ledger_pb2, price_service_pb2
from darkbloom.common.v1 import page_pb2, price_pb2
from darkbloom_billing import convert, convert_keys, model
from darkbloom_mesh.errors import InvalidArgumentError
from google.protobuf.message import DecodeError, Message
from hypothesis import assume, given
from hypothesis import strategies as st

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
READERS: list[tuple[type[Message], Callable[[Any], object]]] = [
    (ledger_pb2.HoldOrder, convert.order),
    (ledger_pb2.Settlement, convert.settlement),
    (ledger_pb2.Release, convert.release),
    (price_pb2.PriceRow, convert.price_row),
    (price_service_pb2.SetPriceRequest, convert.new_price),
    (account_service_pb2.CreateKeyRequest, convert_keys.new_key),
    (page_pb2.PageRequest, convert.cursor),
    (page_pb2.PageRequest, convert.page_size),
]


@pytest.mark.parametrize(("kind", "read"), READERS)
@given(data=st.binary(max_size=200))
def test_readers_are_total(kind: type[Message], read: Callable[[Any], object], data: bytes) -> None:
    message = kind()
    try:
        message.ParseFromString(data)
        read(message)
    except (DecodeError, InvalidArgumentError):
        pass


@given(st.text(max_size=60))
def test_a_page_token_is_ours_or_refused(token: str) -> None:
    assume(token)
    with pytest.raises(InvalidArgumentError) as caught:
        convert.cursor(page_pb2.PageRequest(page_token=token))
    assert caught.value.field == "page.page_token"


MICROS = st.integers(0, 2**55).map(lambda n: EPOCH + timedelta(microseconds=n))


@given(MICROS, st.binary(min_size=16, max_size=16))
def test_a_page_token_leads_back_to_its_row(at: datetime, raw: bytes) -> None:
    last = model.Cursor(settled_at=at, request_id=f"req_{raw.hex()}")
    _, token = convert.page([last, last], 1, lambda row: row)
    assert convert.cursor(page_pb2.PageRequest(page_token=token)) == last


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("request_id", "req_"),
        ("request_id", "att_" + "0" * 32),
        ("account_id", ""),
        ("account_id", "a b"),
        ("account_id", "a\x00"),
        ("build", "x" * 257),
        ("requested_model", ""),
        ("prompt_bound", 0),
        ("prompt_bound", -1),
        ("output_bound", 2**24 + 1),
    ],
)
def test_a_malformed_order_names_its_field(field: str, value: Any) -> None:
    fields: dict[str, Any] = {
        "request_id": "req_" + "0" * 32,
        "account_id": "a",
        "build": "b",
        "requested_model": "m",
        "prompt_bound": 1,
        "output_bound": 1,
    }
    convert.order(ledger_pb2.HoldOrder(**fields))
    with pytest.raises(InvalidArgumentError) as caught:
        convert.order(ledger_pb2.HoldOrder(**{**fields, field: value}))
    assert caught.value.field == field


def test_every_refusal_and_every_end_has_its_word_on_the_wire() -> None:
    for refusal in model.HoldRefusal:
        written = convert.hold_result(model.HoldOutcome(request_id="r", refusal=refusal))
        assert written.refusal
    for status in model.EndStatus:
        assert convert.settlement_result(model.EndOutcome(request_id="r", status=status)).status
