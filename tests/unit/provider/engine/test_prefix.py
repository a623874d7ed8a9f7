"""The prefix cache without a model: names, the memory tier, and what is found where."""

import dataclasses

import pytest
from darkbloom_provider.engine.prefix.cache import Prefix, PrefixCache
from darkbloom_provider.engine.prefix.chain import chain_of, root_of
from darkbloom_provider.engine.prefix.memory import MemoryTier
from hypothesis import given
from hypothesis import strategies as st

WEIGHTS = "ab" * 32
ALICE, BOB = b"a" * 32, b"b" * 32


@dataclasses.dataclass(frozen=True)
class Piece:
    name: str
    nbytes: int = 10


def names(tokens, scope=ALICE, weights=WEIGHTS, block=4):
    return chain_of(root_of(scope, weights), tokens, block)


# Names.


@given(
    first=st.lists(st.integers(0, 2**31), max_size=40),
    second=st.lists(st.integers(0, 2**31), max_size=40),
)
def test_two_prompts_share_exactly_the_names_of_their_common_whole_blocks(first, second):
    common = 0
    while common < min(len(first), len(second)) and first[common] == second[common]:
        common += 1
    shared = [a == b for a, b in zip(names(first), names(second), strict=False)]
    expected = [4 * (index + 1) <= common for index in range(len(shared))]
    assert shared == expected


@given(st.lists(st.integers(0, 2**31), min_size=1, max_size=40))
def test_the_last_token_is_never_covered(tokens):
    assert len(names(tokens)) * 4 <= len(tokens) - 1


def test_another_scope_or_other_weights_share_no_name():
    tokens = list(range(40))
    mine = set(names(tokens))
    assert mine.isdisjoint(names(tokens, scope=BOB))
    assert mine.isdisjoint(names(tokens, weights="cd" * 32))
    # Lengths are part of a name: no two parts can trade bytes.
    assert root_of(b"ab", "c") != root_of(b"a", "bc")


# The memory tier.


def test_blocks_are_found_from_the_first_on_without_a_gap():
    tier = MemoryTier(1_000)
    chain = [b"1", b"2", b"3"]
    tier.put(chain[:2], [Piece("1"), Piece("2")])
    assert [one.name for one in tier.find(chain)] == ["1", "2"]
    assert tier.find([b"2", b"3"]) == [Piece("2")]
    assert tier.find([b"x", b"1"]) == []


def test_a_block_without_its_beginning_is_not_kept():
    tier = MemoryTier(1_000)
    tier.put([b"1", b"2"], [Piece("2")])
    assert len(tier) == 0


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 6), st.booleans()),
        max_size=40,
    ),
    st.integers(0, 80),
)
def test_the_cap_holds_and_every_block_stays_reachable(steps, cap):
    tier = MemoryTier(cap)
    for letter, length, store in steps:
        chain = [f"{letter}{index}".encode() for index in range(length)]
        known = len(tier.find(chain))
        if store:
            tier.put(chain, [Piece(name.decode()) for name in chain[known:]])
        assert tier.bytes <= cap
        assert tier.bytes == 10 * len(tier)
        for name in "abc":
            whole = [f"{name}{index}".encode() for index in range(6)]
            held = [index for index, one in enumerate(whole) if tier.count([one])]
            assert held == list(range(len(held)))


def test_the_least_recently_used_chain_goes_first():
    tier = MemoryTier(40)
    tier.put([b"a", b"b"], [Piece("a"), Piece("b")])
    tier.put([b"c", b"d"], [Piece("c"), Piece("d")])
    tier.find([b"a", b"b"])
    tier.put([b"e"], [Piece("e")])
    assert tier.count([b"a", b"b"]) == 2
    assert tier.count([b"c", b"d"]) == 1
    assert tier.evicted == 1


# What is found.


def planned(cache, tokens, scope=ALICE) -> Prefix:
    prefix = cache.plan(scope, WEIGHTS, tokens)
    assert prefix is not None
    return prefix


def test_short_prompts_and_prompts_that_nobody_may_share_have_no_plan():
    cache = PrefixCache(1_000, block_tokens=4)
    assert cache.plan(ALICE, WEIGHTS, [1, 2, 3, 4]) is None
    assert cache.plan(b"", WEIGHTS, list(range(20))) is None
    assert cache.plan(ALICE, "", list(range(20))) is None
    assert "20" not in repr(planned(cache, list(range(20, 40))))


def test_a_beginning_ends_where_chunks_end():
    cache = PrefixCache(1_000, block_tokens=4)
    prefix = planned(cache, list(range(30)))
    cache.keep(prefix, 0, [Piece(str(i)) for i in range(7)])
    assert cache.find(prefix, 2).tokens == 28
    assert cache.find(prefix, 8).tokens == 24
    assert len(cache.find(prefix, 8).blocks) == 6
    assert cache.find(prefix, 64).tokens == 0
    # A chunk that no block ends with: nothing can be used.
    assert cache.find(prefix, 7).tokens == 28


def test_another_account_never_hits_and_the_counts_say_so():
    cache = PrefixCache(1_000, block_tokens=4)
    tokens = list(range(30))
    cache.keep(planned(cache, tokens), 0, [Piece("x")] * 7)
    assert cache.find(planned(cache, tokens, BOB), 4).tokens == 0
    assert (cache.counts.lookups, cache.counts.hits, cache.counts.hit_tokens) == (1, 0, 0)
    assert cache.find(planned(cache, tokens), 4).tokens == 28
    assert (cache.counts.lookups, cache.counts.hits, cache.counts.hit_tokens) == (2, 1, 28)


class Disk:
    """A tier that gives what it was told to."""

    def __init__(self, blocks):
        self.blocks, self.asked, self.offered = blocks, [], []

    async def stage(self, prefix, start):
        self.asked.append(start)
        return self.blocks

    def known(self, _prefix):
        return 0

    def offer(self, prefix, start, blocks):
        self.offered.append((start, len(blocks)))


async def test_the_disk_is_asked_only_for_what_the_memory_does_not_have():
    disk = Disk([Piece("from disk")])
    cache = PrefixCache(1_000, block_tokens=4, disk=disk)
    tokens = list(range(12))
    prefix = planned(cache, tokens)
    staged = await cache.stage(prefix)
    assert disk.asked == [0]
    assert cache.find(staged, 4).tokens == 4
    assert cache.counts.disk_tokens == 4

    cache.keep(prefix, 0, [Piece("1"), Piece("2")])
    assert disk.offered == [(0, 2)]
    assert await cache.stage(prefix) is prefix
    assert disk.asked == [0]


async def test_memory_and_disk_each_get_blocks_of_their_own_size():
    disk = Disk([Piece("large")])
    cache = PrefixCache(1_000, block_tokens=8, fine_tokens=4, disk=disk)
    fine, large = planned(cache, list(range(21))).views
    assert (len(fine.chain), len(large.chain)) == (5, 2)
    cache.keep(fine, 0, [Piece(str(number)) for number in range(3)])
    assert (cache.missing(fine), cache.missing(large)) == (3, 0)
    assert disk.offered == []
    cache.keep(large, 0, [Piece("l"), Piece("m")])
    assert disk.offered == [(0, 2)]
    assert len(cache.memory) == 3

    staged = await cache.stage(fine)
    assert disk.asked == [1], "the first large block is in memory already"
    assert [block.name for block in staged.staged] == ["0", "1", "large"]
    assert cache.find(staged, 4).tokens == 16
    assert len(cache.find(staged, 16).blocks) == 3
    assert cache.find(staged, 12).tokens == 0, "no block ends there"
    assert cache.counts.disk_tokens == 8


def test_blocks_of_the_disk_are_whole_blocks_of_the_memory():
    with pytest.raises(ValueError, match="not whole blocks"):
        PrefixCache(1_000, block_tokens=10, fine_tokens=4)
