"""The envelope against a relay that may do anything to what passes through it."""

import pytest
from darkbloom_edge.boxes import HEADER_BYTES, Opener, Sealer
from darkbloom_edge.envelope import (
    MAX_CHUNK_BYTES,
    MAX_LIFETIME_MS,
    MAX_SKEW_MS,
    EdgeSession,
    KeyPair,
    Opened,
    ProviderSession,
    RequestHeader,
    SenderKeyMemory,
    check_header,
    new_key_pair,
)
from darkbloom_edge.errors import EdgeError, EnvelopeError, EnvelopeFault
from darkbloom_edge.ids import new_id
from hypothesis import given, settings
from hypothesis import strategies as st

NOW_MS = 1_800_000_000_000
REQUEST_ID = new_id("req", bytes(16))
ATTEMPT_ID = new_id("att", bytes(16))
VERDICT_ID = new_id("ver", bytes(16))
K = new_key_pair()


def header(**changes: object) -> RequestHeader:
    fields: dict[str, object] = {
        "not_after_ms": NOW_MS + 60_000,
        "prompt_bound": 100,
        "output_bound": 200,
        "receipt_key": bytes(range(32)),
        "verdict_id": VERDICT_ID,
        "sealed_to": 1,
        "edge_nonce": bytes(32),
    }
    return RequestHeader(**{**fields, **changes})


def edge(request_id: str = REQUEST_ID, attempt_id: str = ATTEMPT_ID) -> EdgeSession:
    return EdgeSession.create(provider_key=K.public, request_id=request_id, attempt_id=attempt_id)


def open_at(
    sender_key: bytes,
    payload: bytes,
    *,
    key_pair: KeyPair = K,
    now_ms: int = NOW_MS,
    memory: SenderKeyMemory | None = None,
    request_id: str = REQUEST_ID,
    attempt_id: str = ATTEMPT_ID,
) -> Opened:
    return ProviderSession.open_request(
        key_pair=key_pair,
        sender_key=sender_key,
        request_id=request_id,
        attempt_id=attempt_id,
        payload=payload,
        now_ms=now_ms,
        memory=memory or SenderKeyMemory(),
    )


def both() -> tuple[EdgeSession, ProviderSession]:
    session = edge()
    opened = open_at(session.sender_key, session.seal_request(header(), b"{}"))
    return session, opened.session


def fault_of(raised: pytest.ExceptionInfo[EnvelopeError]) -> EnvelopeFault:
    return raised.value.reason


@given(st.binary(max_size=2000), st.lists(st.binary(max_size=200), min_size=1, max_size=8))
def test_what_is_sealed_is_opened_unchanged_and_in_order(body: bytes, chunks: list[bytes]) -> None:
    session = edge()
    opened = open_at(session.sender_key, session.seal_request(header(), body))
    assert opened.body == body
    assert opened.header == header()

    for index, chunk in enumerate(chunks):
        last = index == len(chunks) - 1
        payload = opened.session.seal_chunk(chunk, final=last)
        assert session.open_chunk(payload) == (chunk, last)
    assert session.opened_frames == opened.session.sealed_frames == len(chunks)


def test_a_request_reflected_as_a_chunk_does_not_open() -> None:
    session = edge()
    payload = session.seal_request(header(), b"prompt")
    with pytest.raises(EnvelopeError) as raised:
        session.open_chunk(payload)
    assert fault_of(raised) is EnvelopeFault.BAD_DIRECTION


def test_a_chunk_reflected_as_a_request_does_not_open() -> None:
    session, provider = both()
    payload = provider.seal_chunk(b"answer", final=True)
    with pytest.raises(EnvelopeError) as raised:
        open_at(session.sender_key, payload)
    assert fault_of(raised) is EnvelopeFault.BAD_DIRECTION


@given(st.permutations(range(4)).filter(lambda order: list(order) != [0, 1, 2, 3]))
def test_reordered_chunks_do_not_open(order: list[int]) -> None:
    session, provider = both()
    payloads = [provider.seal_chunk(bytes([n]), final=n == 3) for n in range(4)]
    first_wrong = next(place for place, position in enumerate(order) if place != position)
    for position in order[:first_wrong]:
        session.open_chunk(payloads[position])
    with pytest.raises(EnvelopeError):
        session.open_chunk(payloads[order[first_wrong]])


@given(st.integers(0, 3))
def test_a_dropped_chunk_is_noticed(dropped: int) -> None:
    session, provider = both()
    payloads = [provider.seal_chunk(bytes([n]), final=n == 4) for n in range(5)]
    for payload in payloads[:dropped]:
        session.open_chunk(payload)
    with pytest.raises(EnvelopeError):
        session.open_chunk(payloads[dropped + 1])


def test_a_cut_answer_never_shows_a_final_flag() -> None:
    session, provider = both()
    payloads = [provider.seal_chunk(b"x"), provider.seal_chunk(b"y", final=True)]
    assert session.open_chunk(payloads[0]) == (b"x", False)


@given(st.integers(0, 2))
def test_a_repeated_chunk_does_not_open_twice(repeated: int) -> None:
    session, provider = both()
    payloads = [provider.seal_chunk(bytes([n])) for n in range(3)]
    for payload in payloads[: repeated + 1]:
        session.open_chunk(payload)
    with pytest.raises(EnvelopeError):
        session.open_chunk(payloads[repeated])


@given(st.data())
def test_a_truncated_or_extended_box_does_not_open(data: st.DataObject) -> None:
    session, provider = both()
    payload = provider.seal_chunk(b"some content")
    size = data.draw(st.integers(0, len(payload) + 20).filter(lambda n: n != len(payload)))
    with pytest.raises(EnvelopeError):
        session.open_chunk((payload + bytes(20))[:size])


@given(st.data())
def test_a_flipped_bit_anywhere_is_noticed(data: st.DataObject) -> None:
    session = edge()
    payload = bytearray(session.seal_request(header(), b"prompt"))
    bit = data.draw(st.integers(0, len(payload) * 8 - 1))
    payload[bit // 8] ^= 1 << (bit % 8)
    with pytest.raises(EnvelopeError) as raised:
        open_at(session.sender_key, bytes(payload))
    assert fault_of(raised) is EnvelopeFault.NOT_OPENABLE


def test_another_providers_key_opens_nothing() -> None:
    session = edge()
    payload = session.seal_request(header(), b"prompt")
    with pytest.raises(EnvelopeError) as raised:
        open_at(session.sender_key, payload, key_pair=new_key_pair())
    assert fault_of(raised) is EnvelopeFault.NOT_OPENABLE


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33), bytes(32), b"\x01" + bytes(31)])
def test_keys_of_wrong_size_or_low_order_are_refused(key: bytes) -> None:
    with pytest.raises(EnvelopeError) as raised:
        EdgeSession.create(provider_key=key, request_id=REQUEST_ID, attempt_id=ATTEMPT_ID)
    assert fault_of(raised) is EnvelopeFault.BAD_KEY


def test_a_box_of_another_request_or_attempt_does_not_open() -> None:
    session = edge()
    payload = session.seal_request(header(), b"prompt")
    for ids in ({"request_id": new_id("req")}, {"attempt_id": new_id("att")}):
        with pytest.raises(EnvelopeError) as raised:
            open_at(session.sender_key, payload, **ids)
        assert fault_of(raised) is EnvelopeFault.BAD_IDS


def test_the_same_request_delivered_twice_is_opened_once() -> None:
    session, memory = edge(), SenderKeyMemory()
    payload = session.seal_request(header(), b"prompt")
    open_at(session.sender_key, payload, memory=memory)
    with pytest.raises(EnvelopeError) as raised:
        open_at(session.sender_key, payload, memory=memory)
    assert fault_of(raised) is EnvelopeFault.KEY_REUSED


def _respell(key: bytes) -> bytes:
    """Add a point of low order: another key on the wire, the same shared key."""
    # Montgomery x of P + (0, 0), the point of order two, is 1 / x.
    prime = 2**255 - 19
    return pow(int.from_bytes(key, "little"), -1, prime).to_bytes(32, "little")


@pytest.mark.parametrize(
    "respell",
    [_respell, lambda key: key[:31] + bytes([key[31] | 0x80])],
    ids=["low-order part", "top bit"],
)
def test_a_replay_under_a_respelled_sender_key_is_refused(respell: object) -> None:
    session, memory = edge(), SenderKeyMemory()
    payload = session.seal_request(header(), b"prompt")
    open_at(session.sender_key, payload, memory=memory)

    assert callable(respell)
    other = respell(session.sender_key)
    assert other != session.sender_key
    assert open_at(other, payload).body == b"prompt"  # a fresh memory shows that it does open
    with pytest.raises(EnvelopeError) as raised:
        open_at(other, payload, memory=memory)
    assert fault_of(raised) is EnvelopeFault.KEY_REUSED


@pytest.mark.parametrize(
    ("not_after_ms", "fault"),
    [
        (NOW_MS - 1, EnvelopeFault.EXPIRED),
        (NOW_MS + MAX_LIFETIME_MS + MAX_SKEW_MS + 1, EnvelopeFault.LIFETIME),
    ],
)
def test_a_request_outside_its_time_is_refused(not_after_ms: int, fault: EnvelopeFault) -> None:
    session = edge()
    payload = session.seal_request(header(not_after_ms=not_after_ms), b"prompt")
    with pytest.raises(EnvelopeError) as raised:
        open_at(session.sender_key, payload)
    assert fault_of(raised) is fault


@pytest.mark.parametrize(
    "changes",
    [
        {"receipt_key": bytes(31)},
        {"edge_nonce": b""},
        {"verdict_id": "ver_x"},
        {"sealed_to": 0},
        {"prompt_bound": -1},
        {"output_bound": 2**53},
        {"not_after_ms": -5},
    ],
)
def test_an_impossible_header_is_never_sealed(changes: dict[str, object]) -> None:
    with pytest.raises(EnvelopeError) as raised:
        edge().seal_request(header(**changes), b"{}")
    assert fault_of(raised) is EnvelopeFault.BAD_HEADER


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"prompt_bound": 1}, EnvelopeFault.WRONG_BOUNDS),
        ({"output_bound": 1}, EnvelopeFault.WRONG_BOUNDS),
        ({"verdict_id": new_id("ver")}, EnvelopeFault.WRONG_VERDICT),
    ],
)
def test_bounds_and_verdict_that_the_router_changed_are_noticed(
    changes: dict[str, object], fault: EnvelopeFault
) -> None:
    plain: dict[str, object] = {
        "prompt_bound": 100,
        "output_bound": 200,
        "verdict_id": VERDICT_ID,
    }
    check_header(header(), **plain)
    with pytest.raises(EnvelopeError) as raised:
        check_header(header(), **{**plain, **changes})
    assert fault_of(raised) is fault


def test_nothing_opens_after_a_fault_not_even_the_right_box() -> None:
    session, provider = both()
    good = provider.seal_chunk(b"x")
    with pytest.raises(EnvelopeError):
        session.open_chunk(b"y" * 100)
    with pytest.raises(EnvelopeError) as raised:
        session.open_chunk(good)
    assert fault_of(raised) is EnvelopeFault.BROKEN


def test_nothing_is_sealed_or_opened_after_the_final_box() -> None:
    session, provider = both()
    last = provider.seal_chunk(b"x", final=True)
    with pytest.raises(EnvelopeError) as raised:
        provider.seal_chunk(b"y")
    assert fault_of(raised) is EnvelopeFault.AFTER_FINAL
    session.open_chunk(last)
    with pytest.raises(EnvelopeError) as raised:
        session.open_chunk(last)
    assert fault_of(raised) is EnvelopeFault.AFTER_FINAL
    with pytest.raises(EnvelopeError):
        session.seal_request(header(), b"{}")


def test_an_oversized_chunk_is_refused_before_it_takes_a_position() -> None:
    session, provider = both()
    with pytest.raises(EnvelopeError) as raised:
        provider.seal_chunk(bytes(MAX_CHUNK_BYTES))
    assert fault_of(raised) is EnvelopeFault.BAD_SIZE
    assert session.open_chunk(provider.seal_chunk(b"x")) == (b"x", False)


class _NonceSpy:
    """Records every nonce that a sealer uses."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []


def test_no_nonce_ever_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    spy = _NonceSpy()

    def seal(message: bytes, nonce: bytes, key: bytes) -> bytes:
        spy.seen.append(nonce)
        return bytes(16) + message

    monkeypatch.setattr("darkbloom_edge.boxes._seal", seal)
    for _ in range(50):
        for direction in (1, 2):
            sealer = Sealer(bytes(32), direction, bytes(32))
            for _ in range(20):
                sealer.seal(b"", final=False)
    assert len(set(spy.seen)) == len(spy.seen) == 2000
    assert {len(nonce) for nonce in spy.seen} == {24}


def test_the_inner_header_is_laid_out_as_the_wire_page_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("darkbloom_edge.boxes._seal", lambda plain, nonce, key: bytes(plain))
    ids = bytes(range(32))
    sealer = Sealer(bytes(32), 2, ids)
    first = sealer.seal(b"abc", final=False)
    assert first[16:] == bytes.fromhex("0102000000000000") + bytes(8) + ids + b"abc"
    second = sealer.seal(b"def", final=True)
    assert second == bytes.fromhex("0102010000000000") + (1).to_bytes(8, "big") + ids + b"def"
    assert len(second) == HEADER_BYTES + 3


@given(st.binary(max_size=300))
def test_an_opener_raises_nothing_but_edge_errors(payload: bytes) -> None:
    with pytest.raises(EdgeError):
        Opener(bytes(range(32)), 2, bytes(32)).open(payload)
    with pytest.raises(EdgeError):
        open_at(new_key_pair().public, payload)


@given(st.binary(max_size=300))
@settings(max_examples=200)
def test_a_sealed_request_with_arbitrary_content_raises_nothing_but_edge_errors(
    content: bytes,
) -> None:
    session = edge()
    payload = session._sealer.seal(content, final=True)
    with pytest.raises(EdgeError):
        open_at(session.sender_key, payload)


def test_no_repr_shows_keys_or_content() -> None:
    session = edge()
    opened = open_at(session.sender_key, session.seal_request(header(), b"canary"))
    shown = repr([K, header(), session, opened, opened.session])
    assert "canary" not in shown
    assert repr(K.private) not in shown
    assert repr(bytes(range(32))) not in shown


def test_the_memory_refuses_new_keys_rather_than_forget_a_live_one() -> None:
    memory = SenderKeyMemory(max_entries=2)
    memory.remember(b"a", not_after_ms=10, now_ms=0)
    memory.remember(b"b", not_after_ms=20, now_ms=0)
    with pytest.raises(EnvelopeError) as raised:
        memory.remember(b"c", not_after_ms=30, now_ms=10)
    assert fault_of(raised) is EnvelopeFault.MEMORY_FULL

    memory.remember(b"c", not_after_ms=30, now_ms=11)
    assert memory.entries == 2


def test_a_clock_set_back_revives_no_forgotten_key() -> None:
    memory = SenderKeyMemory(max_entries=4)
    memory.remember(b"a", not_after_ms=10, now_ms=0)
    memory.remember(b"b", not_after_ms=100, now_ms=50)
    with pytest.raises(EnvelopeError) as raised:
        memory.remember(b"a", not_after_ms=10, now_ms=0)
    assert fault_of(raised) is EnvelopeFault.EXPIRED
