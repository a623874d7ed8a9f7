import contextlib
import hashlib

from darkbloom_gateway.errors import ApiError
from darkbloom_gateway.keys import KeyCache, Kind, read_bearer
from darkbloom_gateway.model import Caller, KeyRecord, Refusal
from hypothesis import given
from hypothesis import strategies as st

KEY = Caller("acct_1", key=KeyRecord("key_1", "acct_1"))
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
    cache.store(HASH, Refusal.UNUSABLE, generation=None, now=0)

    assert cache.get(HASH, 4) is Refusal.UNUSABLE
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
        cache.store(name, Refusal.UNUSABLE, generation=None, now=0)

    assert cache.get(HASH, 1) is KEY
    assert len(cache) == 11


def test_a_changed_account_takes_all_its_credentials_along() -> None:
    cache = KeyCache(60)
    other = Caller("acct_2")
    for name, caller in ((b"1" * 32, KEY), (b"2" * 32, Caller("acct_1", user_id="user_1"))):
        cache.begin(name)
        cache.store(name, caller, generation=1, now=0)
    cache.begin(b"3" * 32)
    cache.store(b"3" * 32, other, generation=1, now=0)
    cache.begin(b"4" * 32)

    cache.account_changed("acct_1", 2)
    cache.store(b"4" * 32, KEY, generation=1, now=0)

    assert [cache.get(name * 32, 1) for name in (b"1", b"2", b"3", b"4")] == [
        None,
        None,
        other,
        None,
    ]


def test_a_login_is_remembered_no_longer_than_it_lives() -> None:
    cache = KeyCache(60)
    cache.begin(HASH)
    cache.store(HASH, KEY, generation=1, now=0, life_s=10)

    assert cache.get(HASH, 9) is KEY
    assert cache.get(HASH, 10) is None


def test_credentials_are_told_apart_by_their_looks() -> None:
    admin = hashlib.sha256(b"operator").digest()
    looks = {
        b"bearer eyJhbGci": Kind.LOGIN,
        b"Bearer operator": Kind.ADMIN_KEY,
        b"Bearer sk-db-1": Kind.API_KEY,
        b"Bearer dbp-1": Kind.PROVIDER_TOKEN,
        b"Bearer eigeninference-pt-1": Kind.PROVIDER_TOKEN,
        b"Bearer eigeninference-1": Kind.API_KEY,
    }

    assert {header: read_bearer(header, admin).kind for header in looks} == looks


@given(st.binary(max_size=700))
def test_any_header_gives_a_hash_or_401(header: bytes) -> None:
    with contextlib.suppress(ApiError):
        assert len(read_bearer(header).hash) == 32
