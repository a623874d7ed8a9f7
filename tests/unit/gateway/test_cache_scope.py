"""Scopes of prefix caches: one account, one build, one machine, one day."""

import pytest
from darkbloom_gateway.cache_scope import DAY_MS, SCOPE_BYTES, cache_scope

SECRET = bytes(range(32))
BASE = {"account_id": "acct_1", "build": "org/a", "identity_key": b"k" * 65, "now_ms": 5 * DAY_MS}


def test_the_same_account_has_the_same_scope_all_day():
    late = BASE | {"now_ms": 6 * DAY_MS - 1}
    assert cache_scope(SECRET, **BASE) == cache_scope(SECRET, **late)
    assert len(cache_scope(SECRET, **BASE)) == SCOPE_BYTES


@pytest.mark.parametrize(
    "change",
    [
        {"account_id": "acct_2"},
        {"build": "org/b"},
        {"identity_key": b"l" * 65},
        {"now_ms": 6 * DAY_MS},
        # Fields cannot trade bytes with their neighbours.
        {"account_id": "acct_1o", "build": "rg/a"},
    ],
    ids=["account", "build", "provider", "day", "boundary"],
)
def test_anything_else_gives_another_scope(change):
    assert cache_scope(SECRET, **BASE) != cache_scope(SECRET, **BASE | change)


def test_without_the_secret_a_scope_cannot_be_made():
    assert cache_scope(SECRET, **BASE) != cache_scope(bytes(32), **BASE)
