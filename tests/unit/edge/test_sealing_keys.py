"""The file of sealing keys: what is published, what still opens, how it is rotated."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.sealed_request import key_id
from darkbloom_edge.sealing_keys import KeyRing, encode_keys, new_file, parse_keys, rotated
from darkbloom_edge.signatures import from_base64, to_base64

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
LEAD, GRACE = timedelta(seconds=60), timedelta(seconds=900)


def entry(private: bytes = b"\x01" * 32, **changes: Any) -> dict[str, Any]:
    return {"private_key": to_base64(private), "from": "2026-01-01T00:00:00Z", **changes}


def two() -> KeyRing:
    first = rotated(KeyRing(), b"\x01" * 32, NOW, lead=LEAD, grace=GRACE)
    return rotated(first, b"\x02" * 32, NOW + timedelta(days=1), lead=LEAD, grace=GRACE)


def test_a_first_key_is_published_at_once() -> None:
    ring = parse_keys(new_file(lambda size: b"\x07" * size, NOW))
    current, previous = ring.published(NOW)
    assert current is not None
    assert current.until is None
    assert previous == ()


def test_a_successor_opens_before_it_is_published_and_its_predecessor_after() -> None:
    ring = two()
    old, new = ring.keys
    day = NOW + timedelta(days=1)
    moments = {
        day: (old.kid, [], True, True),
        day + LEAD: (new.kid, [old.kid], True, True),
        day + LEAD + GRACE - timedelta(seconds=1): (new.kid, [old.kid], True, True),
        day + LEAD + GRACE: (new.kid, [], False, True),
    }
    for moment, want in moments.items():
        current, previous = ring.published(moment)
        assert current is not None
        opens = [ring.accepted(key.kid, moment) is not None for key in (old, new)]
        assert (current.kid, [key.kid for key in previous], *opens) == want


def test_the_page_tells_when_a_key_ends_once_a_successor_is_planned() -> None:
    ring = two()
    current, _ = ring.published(NOW + timedelta(days=1))
    assert current is not None
    assert current.until == NOW + timedelta(days=1) + LEAD + GRACE


def test_what_has_ended_is_forgotten_by_the_next_rotation() -> None:
    ring = rotated(two(), b"\x03" * 32, NOW + timedelta(days=9), lead=LEAD, grace=GRACE)
    assert len(ring.keys) == 2


def test_a_file_is_read_as_it_was_written() -> None:
    assert parse_keys(encode_keys(two())).keys == two().keys


def test_a_grace_shorter_than_caches_is_refused() -> None:
    with pytest.raises(MalformedError):
        rotated(KeyRing(), b"\x01" * 32, NOW, lead=LEAD, grace=timedelta(minutes=9))


def test_the_same_key_twice_is_refused() -> None:
    with pytest.raises(MalformedError):
        rotated(two(), b"\x02" * 32, NOW + timedelta(days=1), lead=LEAD, grace=GRACE)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"keys": []},
        {"keys": [entry()] * 2},
        {"keys": [entry(bytes([n]) * 32) for n in range(17)]},
        {"keys": [entry(b"\x01" * 31)]},
        {"keys": [entry(private_key="?")]},
        {"keys": [entry(**{"from": "yesterday"})]},
        {"keys": [entry(until="2026-13-01T00:00:00Z")]},
        {"keys": {"a": entry()}},
        [],
    ],
)
def test_anything_else_is_no_file_and_is_not_quoted(content: Any) -> None:
    with pytest.raises(MalformedError) as raised:
        parse_keys(json.dumps(content).encode())
    assert to_base64(b"\x01" * 32) not in str(raised.value)


def test_no_repr_shows_a_private_key() -> None:
    text = repr(two().keys)
    assert to_base64(b"\x01" * 32) not in text
    assert repr(b"\x01" * 32) not in text


def test_the_published_rule_of_key_names() -> None:
    public = from_base64("ojUvkH5jPZP6eHbN8jPSx6R/bV7hwoPcApnUZUoPvEc=")
    assert key_id(public) == "833aec78e1c7c828"
