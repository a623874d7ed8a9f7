"""The numbers that a consumer can notice, where they are kept; behaviour is tested elsewhere.

`docs/conformance.md` names the test of what each of them does.
"""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from darkbloom_billing.config import BillingConfig
from darkbloom_billing.identity import devices
from darkbloom_billing.payments import model as payments
from darkbloom_billing.pricing import MINIMUM_CHARGE_MICROS
from darkbloom_edge import media
from darkbloom_edge.dialects import chat_sampling
from darkbloom_gateway import connection, errors, guards, seek, wire
from darkbloom_gateway.config import GatewayConfig
from darkbloom_gateway.media import fetcher
from darkbloom_gateway.routes import bodies, log_reports
from darkbloom_gateway.store import _IDLE_MS
from darkbloom_router.config import RouterConfig

PAGE = (Path(__file__).parents[2] / "docs/conformance.md").read_text()


def default(config: type[Any], name: str) -> object:
    return next(field.default for field in fields(config) if field.name == name)


def gateway(name: str) -> object:
    return default(GatewayConfig, name)


def router(name: str) -> object:
    return default(RouterConfig, name)


CONSTANTS: list[tuple[str, object, object]] = [
    ("inference idle timeout", gateway("silence_s"), 600.0),
    ("inference idle timeout, router", router("silence_timeout_s"), 600.0),
    ("preamble to content", router("preamble_timeout_s"), 90.0),
    ("completion wait after close", gateway("terminal_s"), 2.0),
    ("default output bound", gateway("default_output_bound"), 8192),
    ("device code life", devices.LIFE_S, 900),
    ("device code poll", devices.INTERVAL_S, 5),
    ("distress Retry-After cap", errors.MAX_RETRY_AFTER_S, 60),
    ("minimum charge", MINIMUM_CHARGE_MICROS, 100),
    ("dispatch attempts", router("max_attempts"), 64),
    ("dispatch attempts, sealed", seek.MAX_SEALED, 64),
    ("queue wait", router("queue_wait_s"), 120.0),
    ("settle grace after disconnect", router("break_settle_delay_s"), 30.0),
    ("key cache", gateway("key_cache_s"), 60.0),
    ("drain Retry-After", errors.draining().retry_after_s, 3),
    ("drain grace", gateway("drain_grace_s"), 600.0),
    ("deposit min", payments.MIN_DEPOSIT_MICROS, 500_000),
    ("withdrawal min", payments.MIN_WITHDRAW_MICROS, 1_000_000),
    ("hold lease", default(BillingConfig, "hold_lease_s"), 900.0),
    ("any body", connection.MAX_BODY_BYTES, 64 << 20),
    ("inference body", gateway("max_body_bytes"), 16 << 20),
    ("control-plane body", bodies.MAX_BODY, 64 << 10),
    ("remote file", media.MAX_FILE_BYTES, 8 << 20),
    ("remote media of a request", media.MAX_TOTAL_BYTES, 10 << 20),
    ("pixels of an image", media.MAX_PIXELS, 100_000_000),
    ("time for a remote file", fetcher.FILE_S, 15.0),
    ("time for remote media", fetcher.TOTAL_S, 25.0),
    ("fetches at a time", fetcher.MAX_FETCHES, 32),
    ("routing estimate of an image", media.IMAGE_ESTIMATE_TOKENS, 300),
    ("routing estimate of a video", media.VIDEO_ESTIMATE_TOKENS, 1500),
    ("stop strings beside a grammar", chat_sampling.MAX_STOPS_BESIDE_GRAMMAR, 4),
    ("bytes of a stop string", chat_sampling.MAX_STOP_BYTES, 256),
    ("silence before a comment", gateway("keepalive_s"), 15.0),
    ("log upload", log_reports.MAX_BYTES, 10 << 20),
    ("header timeout", gateway("headers_s"), 10.0),
    ("idle timeout", gateway("idle_s"), 120.0),
    ("body pace", wire.MIN_BODY_RATE, 16 << 10),
    ("keep-alive comment", gateway("keepalive_s"), 15.0),
    ("account requests", (gateway("request_rate"), gateway("request_burst")), (20.0, 120)),
    ("service requests", (gateway("service_rate"), gateway("service_burst")), (200.0, 600)),
    ("financial", (gateway("financial_rate"), gateway("financial_burst")), (0.2, 3)),
    ("input tokens", (gateway("input_tokens"), gateway("input_burst")), (5_000_000, 1_000_000)),
    ("output tokens", (gateway("output_tokens"), gateway("output_burst")), (500_000, 64_000)),
    (
        "service input tokens",
        (gateway("service_input_tokens"), gateway("service_input_burst")),
        (50_000_000, 5_000_000),
    ),
    (
        "service output tokens",
        (gateway("service_output_tokens"), gateway("service_output_burst")),
        (5_000_000, 512_000),
    ),
    ("bucket idle", _IDLE_MS, 30 * 60_000),
    ("IPv6 network", guards._IPV6_NETWORK, 64),
]


@pytest.mark.parametrize("row", CONSTANTS, ids=lambda row: row[0].replace(" ", "-"))
def test_a_constant_has_its_value(row: tuple[str, object, object]) -> None:
    _, kept, expected = row

    assert kept == expected


@pytest.mark.parametrize("seconds", [0.0, 0.2, 1.0, 1.01, 59.5, 60.0, 1e9])
def test_a_wait_is_whole_seconds_from_one_to_sixty(seconds: float) -> None:
    wait = errors.clamp_retry_after(seconds)

    assert 1 <= wait <= 60
    assert wait >= min(seconds, 60)
    assert wait < seconds + 1 or wait == 1


def named_tests() -> list[tuple[Path, str]]:
    root = Path(__file__).parents[2]
    found = []
    for path, name in re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE):
        file = root / path if "/" in path else root / "tests/component/gateway" / path
        found.append((file, name))
    return found


def test_every_test_that_the_page_names_exists() -> None:
    named = named_tests()

    assert len(named) > 80
    missing = [
        f"{file.name}::{name}"
        for file, name in named
        if not file.exists() or f"def {name}(" not in file.read_text()
    ]
    assert missing == []
