"""Sealed requests against whoever stands between consumer and gateway, and against noise."""

import base64
import json

import pytest
from darkbloom_edge.boxes import new_key_pair
from darkbloom_edge.documents import decode_document
from darkbloom_edge.errors import EnvelopeError, MalformedError
from darkbloom_edge.public_form import PublicRegistration
from darkbloom_edge.sealed_request import (
    AnswerSealer,
    Asked,
    Envelope,
    Frame,
    OpenedRequest,
    Sealed,
    SealedError,
    SealedFault,
    key_id,
    open_request,
    read_envelope,
    unpack,
)
from darkbloom_edge.sealing_keys import parse_keys
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.public import PublicKey

from tests.sealed_client import CHAT, FRAMED, PLAIN, NotAuthenticError, SealedCall

PAIR = new_key_pair()
NOW_MS = 1_800_000_000_000
KEY = "sk-db-test"
PAGE = {"kid": key_id(PAIR.public), "public_key": base64.b64encode(PAIR.public).decode()}
ASKED = Asked(f"POST {CHAT}", KEY.encode(), NOW_MS)
BOTH = pytest.mark.parametrize("media_type", [FRAMED, PLAIN])


def call(media_type: str = FRAMED, body: bytes = b"{}") -> SealedCall:
    return SealedCall(PAGE, KEY, body, media_type=media_type, time_ms=NOW_MS)


def sealed(made: SealedCall) -> Sealed:
    return unpack(read_envelope(json.dumps(made.envelope).encode()))


def opened(made: SealedCall, asked: Asked | None = ASKED) -> OpenedRequest:
    return open_request(sealed(made), PAIR, asked if made.framed else None, lambda n: b"p" * n)


def fault(made: SealedCall, asked: Asked) -> SealedFault:
    with pytest.raises(SealedError) as raised:
        open_request(sealed(made), PAIR, asked, bytes)
    return raised.value.fault


@BOTH
def test_what_a_stranger_sealed_opens_as_it_was(media_type: str) -> None:
    body = b'{"text": "\xc3\xa9"}' * 1000
    found = opened(call(media_type, body))
    assert found.body == body
    assert repr(body) not in repr(found)
    assert KEY not in repr(ASKED)


def test_no_byte_of_a_box_can_be_changed() -> None:
    made = call()
    good = made.sealed
    for place in range(len(good)):
        made.sealed = bytes(b ^ (1 if n == place else 0) for n, b in enumerate(good))
        with pytest.raises(SealedError) as raised:
            opened(made)
        assert raised.value.fault is SealedFault.NOT_OPENABLE


@pytest.mark.parametrize("place", range(56))
def test_every_byte_of_the_header_counts(place: int) -> None:
    header = bytearray(call()._header())
    header[place] ^= 0x80
    made = SealedCall(PAGE, KEY, b"{}", header=bytes(header))
    wanted = SealedFault.STALE if 16 <= place < 24 else SealedFault.WRONG_HEADER
    # The lowest bytes of the time move it by less than a minute.
    if place in (22, 23):
        assert opened(made).body == b"{}"
    else:
        assert fault(made, ASKED) is wanted


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        (Asked("POST /v1/messages", KEY.encode(), NOW_MS), SealedFault.WRONG_HEADER),
        (Asked(f"POST {CHAT}", b"sk-db-other", NOW_MS), SealedFault.WRONG_HEADER),
        (Asked(f"POST {CHAT}", b"", NOW_MS), SealedFault.WRONG_HEADER),
        (Asked(f"POST {CHAT}", KEY.encode(), NOW_MS + 600_001), SealedFault.STALE),
        (Asked(f"POST {CHAT}", KEY.encode(), NOW_MS - 120_001), SealedFault.STALE),
    ],
)
def test_a_framed_request_counts_where_and_when_it_was_meant(
    asked: Asked, wanted: SealedFault
) -> None:
    assert fault(call(), asked) is wanted


def test_times_at_the_edges_count() -> None:
    for now_ms in (NOW_MS + 600_000, NOW_MS - 120_000):
        assert opened(call(), Asked(f"POST {CHAT}", KEY.encode(), now_ms)).body == b"{}"


def test_a_plain_request_is_no_framed_one() -> None:
    assert fault(call(PLAIN), ASKED) is SealedFault.WRONG_HEADER


def test_the_mark_is_of_the_request_and_not_of_its_spelling() -> None:
    made = call(PLAIN)
    again = opened(made).mark
    key = bytearray(bytes(made.ours.public_key))
    key[31] ^= 0x80
    raw = sealed(made)
    respelled = open_request(Sealed(bytes(key), raw.nonce, raw.box), PAIR, None, bytes)
    assert respelled.mark == again
    assert opened(call(PLAIN)).mark != again


@BOTH
def test_boxes_of_an_answer_never_share_a_nonce(media_type: str) -> None:
    made = call(media_type)
    answer = opened(made).answer
    boxes = [answer.seal(b"x", status=200, final=n == 9).decode() for n in range(10)]
    assert made.open_all(boxes, 200) == [b"x"] * 10
    assert len({base64.b64decode(box)[:24] for box in boxes}) == 10
    with pytest.raises(EnvelopeError):
        answer.seal(b"x", status=200, final=True)


def test_an_answer_to_another_request_of_the_same_key_is_noticed() -> None:
    one, two = call(), call()
    two.ours, two.box = one.ours, one.box
    two.sealed = bytes(two.box.encrypt(two._header() + b"{}"))
    answer = opened(one).answer.seal(b"x", status=200, final=True).decode()
    with pytest.raises(NotAuthenticError):
        two.open_all([answer], 200)


@pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31)])
def test_a_point_of_low_order_is_no_key(point: bytes) -> None:
    raw = sealed(call())
    with pytest.raises(SealedError) as raised:
        open_request(Sealed(point, raw.nonce, raw.box), PAIR, None, bytes)
    assert raised.value.fault is SealedFault.MALFORMED


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_noise_is_refused_by_name(noise: bytes) -> None:
    for read in (read_envelope, parse_keys, lambda data: decode_document(data, PublicRegistration)):
        with pytest.raises((SealedError, MalformedError)):
            read(noise)
    with pytest.raises(SealedError):
        open_request(
            Sealed(bytes(PublicKey(PAIR.public)), noise[:24], noise[24:]), PAIR, ASKED, bytes
        )


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40), st.text(max_size=200))
def test_fields_of_an_envelope_are_refused_by_name(key: str, text: str) -> None:
    with pytest.raises(SealedError) as raised:
        unpack(Envelope(kid="k", ephemeral_public_key=key, ciphertext=text))
    assert raised.value.fault is SealedFault.MALFORMED


def test_nothing_shows_the_key_of_an_answer() -> None:
    assert "redacted" in repr(AnswerSealer(b"s" * 32, Frame(1, b"c" * 32), b"p" * 16))
