"""A policy says what must hold, and one that cannot hold is none."""

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from darkbloom_client import Pins, PinsError, Policy, PolicyError, Reason
from darkbloom_edge.signatures import to_base64

PINS = Pins(verdict_keys={"k": bytes(32)}, log_keys={"k": bytes(32)})
KEYS = {"verdict_keys": [{"key_id": "k", "public_key": to_base64(bytes(32))}], "receipt_keys": []}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"trust": "none", "app_id": "T.a"},
        {"trust": "platinum", "app_id": "T.a"},
        {"app_id": "T.a", "max_age": timedelta(minutes=17)},
        {"app_id": "T.a", "max_age": timedelta(0)},
        {"app_id": "T.a", "allowed_releases": "rel_1"},
        {"app_id": "T.a", "max_attempts": 0},
        {"app_id": "T.a", "max_attempts": 7},
    ],
    ids=lambda fields: "-".join(fields) or "nothing",
)
def test_a_policy_that_proves_nothing_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(PolicyError):
        Policy(pins=PINS, **fields)


def test_hardware_is_what_is_asked_unless_somebody_says_otherwise() -> None:
    policy = Policy(pins=PINS, app_id="T.a")

    assert (policy.trust, policy.needs_apple, policy.allow_unattested) == ("hardware", True, False)
    assert policy.max_age == timedelta(minutes=16)


def test_a_policy_is_described_without_its_keys() -> None:
    told = Policy(pins=PINS, allow_unattested=True, allowed_releases={"b", "a"}).described()

    assert told["trust"] == "unattested allowed"
    assert told["allowed_releases"] == ["a", "b"]
    assert to_base64(bytes(32)) not in json.dumps(told)


def test_pins_are_a_saved_page_of_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps(KEYS))

    pins = Pins.load(file)

    assert pins.verdict_keys == pins.log_keys == {"k": bytes(32)}
    assert pins.gateway_keys == {}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"verdict_keys":[]}',
        b'{"verdict_keys":[{"key_id":"k","public_key":"AAAA"}]}',
        b'{"verdict_keys":[{"key_id":"k","public_key":"?"}]}',
        b"\xff",
        b" " * (1024 * 1024 + 1),
    ],
    ids=["empty", "list", "none", "short", "text", "binary", "large"],
)
def test_a_file_that_pins_nothing_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(content)

    with pytest.raises(PinsError):
        Pins.load(file)


def test_every_reason_of_a_refusal_is_on_the_page() -> None:
    page = Path(__file__).parents[3] / "clients/python/README.md"
    table = page.read_text().split("## Refusals")[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]

    assert {reason.value for reason in Reason} == set(re.findall(r"`(\w+)`", "".join(rows)))


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(PinsError, match="cannot be read"):
        Pins.load(tmp_path / "none.json")
