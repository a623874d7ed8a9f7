"""The documents and records of end-to-end mode."""

import json
from typing import Any

import pytest
from darkbloom_edge.errors import MalformedError, SignatureRejected
from darkbloom_edge.ids import new_id
from darkbloom_edge.offers import (
    OfferDocument,
    most_bound,
    offer_id,
    parse_offer_id,
    parse_offer_request,
    replica_tag,
    sign_offer,
    verdict_sha256,
    verify_offer,
)
from darkbloom_edge.records import KEEP_ALIVE, RecordKind, RecordReader, write_record
from darkbloom_edge.signatures import Ed25519Signer, to_base64
from hypothesis import given
from hypothesis import strategies as st

GATEWAY = Ed25519Signer(bytes(range(32)))
KEYS = {GATEWAY.key_id: GATEWAY.public}
ASKED = {
    "model": "alias",
    "nonce": to_base64(bytes(32)),
    "prompt_tokens": 10,
    "prompt_bound": 40,
    "body_bytes": 500,
}


def a_document(**changes: Any) -> OfferDocument:
    fields = {
        "offer_id": offer_id(replica_tag("replica"), new_id("att", bytes(16))),
        "nonce": to_base64(bytes(32)),
        "request_id": new_id("req", bytes(16)),
        "attempt_id": new_id("att", bytes(16)),
        "provider_id": new_id("prov", bytes(16)),
        "build": "b",
        "requested_model": "alias",
        "verdict_sha256": verdict_sha256(b"verdict"),
        "prompt_bound": 40,
        "output_bound": 64,
        "body_bytes": 500,
        "hold_micro_usd": 7,
        "issued_at": "2026-01-31T12:00:00Z",
        "reserve_ms": 2000,
    }
    return OfferDocument(**{**fields, **changes})


def test_a_request_for_an_offer_is_read() -> None:
    asked = parse_offer_request(json.dumps(ASKED).encode())
    assert (asked.model, asked.prompt_bound, asked.output_bound) == ("alias", 40, None)
    assert asked.needs == asked.exclude == ()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"nonce": "AA=="}, "nonce"),
        ({"prompt_tokens": 0}, "prompt_tokens"),
        ({"prompt_bound": 9}, "prompt_bound"),
        ({"prompt_bound": most_bound(10) + 1}, "prompt_bound"),
        ({"output_bound": 0}, "output_bound"),
        ({"body_bytes": 1 << 26}, "body_bytes"),
        ({"needs": ["telepathy"]}, "needs"),
        ({"trust_floor": "best"}, "trust_floor"),
        ({"exclude": ["prov_1"]}, "exclude"),
        ({"exclude": [new_id("prov", bytes(16))] * 17}, "exclude"),
        ({"prompt": "a secret"}, "prompt"),
        ({"a secret": 1}, "offer"),
        ({"model": None}, "model"),
    ],
)
def test_a_bad_request_for_an_offer_names_its_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(MalformedError) as raised:
        parse_offer_request(json.dumps({**ASKED, **changes}).encode())
    assert raised.value.field is not None
    assert raised.value.field.startswith(field)
    assert "secret" not in str(raised.value)


def test_an_offer_is_what_the_gateway_has_signed() -> None:
    document, signature = sign_offer(a_document(), GATEWAY)
    assert verify_offer(document, signature, GATEWAY.key_id, KEYS) == a_document()
    with pytest.raises(SignatureRejected):
        verify_offer(document.replace(b"2000", b"1000"), signature, GATEWAY.key_id, KEYS)


def test_an_offer_without_a_price_is_free() -> None:
    document, signature = sign_offer(a_document(), GATEWAY)
    assert b"price" not in document
    assert verify_offer(document, signature, GATEWAY.key_id, KEYS).price is None


def test_an_offer_id_names_replica_and_attempt() -> None:
    attempt = new_id("att")
    assert parse_offer_id(offer_id(replica_tag("router-0"), attempt)) == (
        replica_tag("router-0"),
        attempt,
    )
    assert replica_tag("router-0") != replica_tag("router-1")


@pytest.mark.parametrize(
    "text", ["", "off_", "off_" + "0" * 47, "off_" + "G" * 48, "att_" + "0" * 48]
)
def test_other_text_is_no_offer_id(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_offer_id(text)


@given(st.lists(st.tuples(st.sampled_from([1, 2, 3]), st.binary(max_size=40))), st.data())
def test_records_are_cut_out_of_any_pieces(wanted: list[tuple[int, bytes]], data: Any) -> None:
    stream = b"".join(write_record(kind, payload, 7) for kind, payload in wanted)
    stream += KEEP_ALIVE + write_record(RecordKind.END, b"{}")
    reader, found = RecordReader(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += reader.feed(stream[:size])
        stream = stream[size:]
    assert [(kind, payload) for kind, _, payload in found] == [
        *wanted,
        (RecordKind.KEEP_ALIVE, b""),
        (RecordKind.END, b"{}"),
    ]
    assert reader.ended


def test_a_stream_without_its_last_record_has_not_ended() -> None:
    reader = RecordReader()
    whole = write_record(RecordKind.CONTENT, b"box", 3)
    assert len(list(reader.feed(whole + whole[:-1]))) == 1
    assert not reader.ended


@pytest.mark.parametrize(
    "data",
    [
        write_record(9, b""),
        b"\x02" + bytes(4) + b"\xff\xff\xff\xff",
        write_record(RecordKind.ERROR, b"{}") + b"x",
        write_record(RecordKind.END, b"{}") + KEEP_ALIVE,
    ],
    ids=["kind", "length", "rest", "after"],
)
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        list(RecordReader().feed(data))


def test_a_record_shows_no_payload() -> None:
    [record] = RecordReader().feed(write_record(RecordKind.CONTENT, b"ciphertext"))
    assert "ciphertext" not in repr(record)
