"""Strict CBOR: one spelling, bounded depth and width, nothing but plain values."""

from typing import Any

import cbor2
import pytest
from darkbloom_edge.apple.cbor import MAX_DEPTH, MAX_ELEMENTS, decode_cbor, decode_first
from darkbloom_edge.errors import MalformedError
from hypothesis import assume, given
from hypothesis import strategies as st

PLAIN = st.recursive(
    st.integers(min_value=-(2**64), max_value=2**64 - 1)
    | st.binary(max_size=40)
    | st.text(max_size=40)
    | st.booleans(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


def depth(value: Any) -> int:
    inner = [*value.values()] if isinstance(value, dict) else value
    return 1 + max(map(depth, inner), default=0) if isinstance(value, list | dict) else 0


@given(PLAIN)
def test_plain_values_come_back(value: Any) -> None:
    assume(depth(value) < MAX_DEPTH)
    assert decode_cbor(cbor2.dumps(value), max_bytes=1 << 16) == value


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xf6",
        b"\xf7",
        b"\xf9\x00\x00",
        b"\xfb" + bytes(8),
        b"\xf8\x20",
        b"\x18\x01",
        b"\x19\x00\x01",
        b"\x58\x01\x00",
        b"\x78\x01a",
        b"\x98\x01\x00",
        b"\xb8\x01\x00\x00",
        b"\x5f\x41\x00\xff",
        b"\x7f\x61a\xff",
        b"\x9f\xff",
        b"\xbf\xff",
        b"\xa2\x61a\x00\x61a\x01",
        b"\xa2\x01\x00\x01\x01",
        b"\xa1\x80\x00",
        b"\xc0\x74" + b"2026-01-31T12:00:00Z",
        b"\xc1\x00",
        b"\xc2\x41\x01",
        b"\xc2\x49" + b"\x01" + bytes(8),
        b"\xd8\x1c\x80",
        b"\xd8\x1c\x81\xd8\x1d\x00",
        b"\xd9\x01\x00\x80",
        b"\xd9\xd9\xf7\x00",
        b"\xd8\x23\x61(",
        b"\xd8\x24\x61x",
        b"\xd8\x34\x44" + bytes(4),
        b"\xff",
        b"\x1c",
        b"\x61\xff",
        b"\x5b" + b"\x7f" + b"\xff" * 7,
        b"\x9b" + b"\x7f" + b"\xff" * 7,
        b"\xbb" + b"\x7f" + b"\xff" * 7,
        b"\x00\x00",
        b"\x81" * (MAX_DEPTH + 1) + b"\x00",
        b"\x81" * 30_000,
        cbor2.dumps([0] * (MAX_ELEMENTS + 1)),
        cbor2.dumps(dict.fromkeys(range(MAX_ELEMENTS + 1), 0)),
    ],
    ids=lambda data: data[:12].hex() or "nothing",
)
def test_everything_else_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        decode_cbor(data, max_bytes=1 << 16)


def test_the_bounds_themselves_are_allowed() -> None:
    deep = b"\x81" * (MAX_DEPTH - 1) + b"\x00"
    assert cbor2.dumps(decode_cbor(deep, max_bytes=100)) == deep
    assert len(decode_cbor(cbor2.dumps([0] * MAX_ELEMENTS), max_bytes=100)) == MAX_ELEMENTS
    assert decode_cbor(cbor2.dumps(2**64 - 1), max_bytes=9) == 2**64 - 1


def test_size_is_checked_before_anything_is_read() -> None:
    with pytest.raises(MalformedError, match="larger than 3 bytes"):
        decode_cbor(b"\x43\x00\x00\x00", max_bytes=3)


def test_the_first_item_is_read_with_its_size() -> None:
    assert decode_first(b"\xa1\x01\x02rest", max_bytes=7) == ({1: 2}, 3)
