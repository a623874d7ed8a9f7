import asyncio
from pathlib import Path

import pytest
from darkbloom.common.v1.frame_pb2 import Frame
from darkbloom.router.v1 import gateway_lane_pb2 as lane_pb
from darkbloom_gateway import convert
from darkbloom_gateway.config import GatewayConfig
from darkbloom_gateway.envelopes import error_body
from darkbloom_gateway.errors import clamp_retry_after, insufficient_funds
from darkbloom_gateway.mailbox import MAX_FRAMES, Mailbox, ring_alarms
from darkbloom_gateway.model import Price
from darkbloom_gateway.wire import request_id, shown
from darkbloom_mesh.config import ConfigError, describe, load
from darkbloom_mesh.testing import FakeClock, settle
from hypothesis import given
from hypothesis import strategies as st

README = Path(__file__).parents[3] / "services/gateway/README.md"
MINIMAL = {"REDIS_URL": "redis://x", "DARKBLOOM_ENV": "development"}


def test_retry_after_is_whole_seconds_from_1_to_60() -> None:
    assert [clamp_retry_after(s) for s in (0, 0.2, 1.01, 59.5, 3600)] == [1, 1, 2, 60, 60]


def test_an_error_body_has_the_contract_s_fields() -> None:
    assert error_body(insufficient_funds({"required_micro_usd": 9, "available_micro_usd": 3})) == (
        b'{"error":{"message":"the balance does not cover the worst case of this request",'
        b'"type":"insufficient_funds","code":"insufficient_quota",'
        b'"required_micro_usd":9,"available_micro_usd":3}}'
    )


def test_a_price_is_dearer_if_anything_could_cost_more() -> None:
    base = Price("a", "b", 10, 20, 5, 100)

    assert not base.dearer_than(base)
    assert Price("c", "b", 1, 21, 1, 1).dearer_than(base)
    assert not Price("c", "b", 10, 19, 5, 100).dearer_than(base)


@given(st.integers(), st.text(max_size=80), st.text(max_size=80))
def test_any_refusal_is_a_renderable_error(status: int, kind: str, code: str) -> None:
    kind, code = (text.encode("utf-8", "ignore").decode() for text in (kind, code))
    bounded = max(-(2**31), min(status, 2**31 - 1))
    error = convert.refusal(lane_pb.Refused(http_status=bounded, type=kind, code=code))

    assert 400 <= error.http_status < 600
    assert error_body(error)


@given(st.text())
def test_text_of_a_provider_is_a_safe_header(text: str) -> None:
    value = shown(text)

    assert len(value) <= 64
    assert all(32 <= byte < 127 for byte in value)


@given(st.binary(max_size=200))
def test_only_a_well_formed_request_id_is_echoed(given_id: bytes) -> None:
    scope = {"headers": [(b"x-request-id", given_id)]}
    chosen = request_id(scope, bytes)

    allowed = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
    assert chosen in (given_id, b"0" * 12)
    assert all(byte in allowed for byte in chosen)


async def test_a_mailbox_is_bounded_and_says_so() -> None:
    mailbox = Mailbox()
    for _ in range(MAX_FRAMES + 1):
        mailbox.put(Frame())

    assert len(mailbox.frames) == MAX_FRAMES
    assert mailbox.overflowed


async def test_alarms_wake_who_is_due_and_nobody_else() -> None:
    clock, due, later = FakeClock(), Mailbox(), Mailbox()
    sweeper = asyncio.ensure_future(ring_alarms({due, later}, clock, tick_s=1))
    waits = [asyncio.ensure_future(due.wait(5)), asyncio.ensure_future(later.wait(50))]
    await settle()

    await clock.advance(6)

    assert [wait.done() for wait in waits] == [True, False]
    later.leave()
    await asyncio.wait(waits)
    sweeper.cancel()


def test_an_unusable_configuration_is_refused() -> None:
    for wrong in (
        {"DARKBLOOM_GATEWAY_LISTEN": "nowhere"},
        {"DARKBLOOM_GATEWAY_UNKNOWN": "1"},
        {"DARKBLOOM_GATEWAY_KEY_CACHE_S": "61"},
        {"DARKBLOOM_GATEWAY_VERDICT_KEYS_FILE": "/nonexistent"},
        {"DARKBLOOM_ENV": "production"},
    ):
        with pytest.raises(ConfigError):
            load(GatewayConfig, "gateway", {**MINIMAL, **wrong})
    assert load(GatewayConfig, "gateway", MINIMAL).address() == ("127.0.0.1", 8080)


def test_the_readme_lists_every_variable_with_its_default() -> None:
    text = README.read_text()
    for row in describe(GatewayConfig, "gateway"):
        assert f"| `{row.name}` |" in text, row.name
        assert f"| `{row.default}` |" in text, row.default
