import contextlib

from darkbloom_gateway.errors import ApiError
from darkbloom_gateway.keys import KeyCache, read_bearer
from darkbloom_gateway.model import KeyRecord
from hypothesis import given
from hypothesis import strategies as st

KEY = KeyRecord("key_1", "acct_1")
HASH = b"h" * 32


def test_a_record_is_remembered_for_its_time_only() -> None:
    cache = KeyCache(60)
    cache.begin(HASH)
    cache.store(HASH, KEY, generation=1, now=0)

    assert cache.get(HASH, 59.9) is KEY
    assert cache.get(HASH, 60) is None


def test_an_unknown_key_is_remembered_shortly() -> None:
    cache = KeyCache(60, negative_ttl_s=5)
    cache.begin(HASH)
    cache.store(HASH, None, generation=None, now=0)

    assert isinstance(cache.get(HASH, 4), ApiError)
    assert cache.get(HASH, 5) is None


def test_a_change_during_a_lookup_keeps_what_was_read_before_out() -> None:
    cache = KeyCache(60)
    cache.begin(HASH)
    cache.changed(HASH, 7)
    cache.store(HASH, KEY, generation=6, now=0)
    assert cache.get(HASH, 1) is None

    cache.begin(HASH)
    cache.changed(HASH, 8)
    cache.store(HASH, KEY, generation=8, now=0)
    assert cache.get(HASH, 1) is KEY


def test_a_reset_during_a_lookup_counts_as_a_change_of_every_key() -> None:
    cache = KeyCache(60)
    cache.begin(HASH)
    cache.reset(9)
    cache.store(HASH, KEY, generation=8, now=0)

    assert cache.get(HASH, 1) is None


def test_guesses_cannot_push_known_keys_out() -> None:
    cache = KeyCache(60, max_entries=10)
    cache.begin(HASH)
    cache.store(HASH, KEY, generation=1, now=0)
    for number in range(100):
        name = number.to_bytes(32, "big")
        cache.begin(name)
        cache.store(name, None, generation=None, now=0)

    assert cache.get(HASH, 1) is KEY
    assert len(cache) == 11


@given(st.binary(max_size=700))
def test_any_header_gives_a_hash_or_401(header: bytes) -> None:
    with contextlib.suppress(ApiError):
        assert len(read_bearer(header)) == 32
