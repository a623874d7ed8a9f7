"""Prefix hints: alike where prompts begin alike, for one account and build, and opaque."""

from typing import Any

from darkbloom_gateway.hints import KEY_BYTES, MAX_KEYS, prefix_hint
from hypothesis import given
from hypothesis import strategies as st

SECRET = b"s" * 32
TURNS = st.lists(
    st.fixed_dictionaries({"role": st.just("user"), "content": st.text(max_size=8)}), min_size=1
)


def keys(messages: list[dict[str, Any]], **changes: Any) -> list[bytes]:
    arguments: dict[str, Any] = {
        "account_id": "acct_1",
        "build": "b",
        "fields": {"messages": messages},
        "prompt_tokens": 1000,
    } | changes
    hint = prefix_hint(arguments.pop("secret", SECRET), **arguments)
    return [hint[at : at + KEY_BYTES] for at in range(0, len(hint), KEY_BYTES)]


@given(TURNS, TURNS)
def test_a_conversation_that_goes_on_keeps_the_keys_of_its_beginning(
    first: list[dict[str, Any]], more: list[dict[str, Any]]
) -> None:
    before, after = keys(first), keys(first + more)
    if len(first) + len(more) <= MAX_KEYS:
        assert after[: len(before)] == before
    assert len(after) == min(MAX_KEYS, len(first) + len(more))


def test_another_account_build_tool_or_secret_shares_no_key() -> None:
    turns = [{"role": "user", "content": "hello"}]
    fields = {"messages": turns, "tools": [{"type": "function"}]}
    seen = {
        keys(turns)[0],
        keys(turns, account_id="acct_2")[0],
        keys(turns, build="c")[0],
        keys(turns, fields=fields)[0],
        keys(turns, secret=b"t" * 32)[0],
    }
    assert len(seen) == 5


def test_a_short_or_huge_prompt_and_one_that_cannot_be_written_have_none() -> None:
    turns = [{"role": "user", "content": "hello"}]
    assert keys(turns, prompt_tokens=10) == []
    assert keys(turns, prompt_tokens=10_000_000) == []
    assert keys([{"role": "user", "content": 1 << 80}]) == []
    assert keys([]) == []
