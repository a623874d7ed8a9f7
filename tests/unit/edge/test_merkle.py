import hashlib
from itertools import pairwise

import pytest
from darkbloom_edge.merkle import (
    HASH_BYTES,
    Leaves,
    Node,
    completed_by,
    consistency_spans,
    fold,
    inclusion_spans,
    leaf_hash,
    node_hash,
    nodes_of,
    span_hash,
    verify_consistency,
    verify_inclusion,
)
from hypothesis import given
from hypothesis import strategies as st

# The entries and roots that certificate transparency's implementations test themselves with.
PUBLISHED_ENTRIES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
PUBLISHED_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
LEAVES = [leaf_hash(bytes([number])) for number in range(70)]


def naive_root(leaves: list[bytes]) -> bytes:
    """The recursive definition of RFC 9162 §2.1.1, word by word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return node_hash(naive_root(leaves[:split]), naive_root(leaves[split:]))


def naive_path(index: int, leaves: list[bytes]) -> list[bytes]:
    """The recursive definition of RFC 9162 §2.1.3.1."""
    if len(leaves) == 1:
        return []
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    if index < split:
        return [*naive_path(index, leaves[:split]), naive_root(leaves[split:])]
    return [*naive_path(index - split, leaves[split:]), naive_root(leaves[:split])]


def naive_growth(old: int, leaves: list[bytes], *, whole: bool = True) -> list[bytes]:
    """The recursive definition of RFC 9162 §2.1.4.1."""
    if old == len(leaves):
        return [] if whole else [naive_root(leaves)]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    if old <= split:
        return [*naive_growth(old, leaves[:split], whole=whole), naive_root(leaves[split:])]
    return [*naive_growth(old - split, leaves[split:], whole=False), naive_root(leaves[:split])]


@pytest.mark.parametrize("size", range(9))
def test_roots_are_those_that_other_implementations_publish(size: int) -> None:
    leaves = [leaf_hash(entry) for entry in PUBLISHED_ENTRIES[:size]]
    assert Leaves(leaves).root.hex() == PUBLISHED_ROOTS[size]


@given(st.integers(1, len(LEAVES)), st.data())
def test_proofs_are_those_of_the_naive_tree_and_verify(size: int, data: st.DataObject) -> None:
    leaves = LEAVES[:size]
    tree = Leaves(leaves)
    assert tree.root == naive_root(leaves)

    index = data.draw(st.integers(0, size - 1))
    path = tree.inclusion(index)
    assert path == naive_path(index, leaves)
    assert verify_inclusion(leaves[index], index, size, path, tree.root)

    old = data.draw(st.integers(1, size))
    growth = tree.consistency(old)
    assert growth == naive_growth(old, leaves)
    assert verify_consistency(old, size, naive_root(leaves[:old]), tree.root, growth)


@given(st.integers(2, len(LEAVES)), st.data())
def test_an_inclusion_proof_proves_nothing_else(size: int, data: st.DataObject) -> None:
    tree = Leaves(LEAVES[:size])
    index = data.draw(st.integers(0, size - 1))
    path = tree.inclusion(index)
    other = (index + 1) % size
    flipped = [*path]
    place = data.draw(st.integers(0, len(path) - 1))
    flipped[place] = hashlib.sha256(flipped[place]).digest()

    assert not verify_inclusion(LEAVES[other], index, size, path, tree.root)
    assert not verify_inclusion(LEAVES[index], index, size, flipped, tree.root)
    assert not verify_inclusion(LEAVES[index], index, size, path[:-1], tree.root)
    assert not verify_inclusion(LEAVES[index], index, size, [*path, LEAVES[0]], tree.root)
    assert not verify_inclusion(LEAVES[index], index, size, path, LEAVES[other])
    assert not verify_inclusion(LEAVES[index], size, size, path, tree.root)
    assert not verify_inclusion(LEAVES[index], -1, size, path, tree.root)


@given(st.integers(2, len(LEAVES)), st.data())
def test_a_rewritten_past_has_no_consistency_proof(size: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, size - 1))
    rewritten = [*LEAVES[:size]]
    at = data.draw(st.integers(0, old - 1))
    rewritten[at] = leaf_hash(b"something else")
    before, after = Leaves(LEAVES[:old]).root, Leaves(rewritten)
    assert not verify_consistency(old, size, before, after.root, after.consistency(old))


def test_equal_sizes_need_equal_roots_and_no_path() -> None:
    root = Leaves(LEAVES[:5]).root
    assert verify_consistency(5, 5, root, root, [])
    assert not verify_consistency(5, 5, root, LEAVES[0], [])
    assert not verify_consistency(5, 5, root, root, [LEAVES[0]])


def test_every_tree_grows_out_of_the_empty_one() -> None:
    root = Leaves(LEAVES[:5]).root
    assert verify_consistency(0, 5, fold(()), root, [])
    assert not verify_consistency(0, 5, root, root, [])


def test_a_tree_never_shrinks() -> None:
    assert not verify_consistency(5, 3, LEAVES[0], LEAVES[0], [])


def test_a_leaf_never_passes_for_a_node() -> None:
    left, right = LEAVES[:2]
    assert leaf_hash(left + right) != node_hash(left, right)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (5, 5), (-1, 5)])
def test_there_is_no_path_of_a_leaf_that_is_not_there(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="no such leaf"):
        inclusion_spans(index, size)


@pytest.mark.parametrize(("old", "new"), [(0, 5), (6, 5)])
def test_there_is_no_path_between_impossible_sizes(old: int, new: int) -> None:
    with pytest.raises(ValueError, match="one growing tree"):
        consistency_spans(old, new)


@given(st.integers(0, 2**53), st.integers(0, 2**53))
def test_a_span_is_a_row_of_perfect_subtrees(one: int, other: int) -> None:
    start, end = sorted((one, other))
    nodes = nodes_of((start, end))
    edges = [(node.place << node.level, node.place + 1 << node.level) for node in nodes]
    assert all(before[1] == after[0] for before, after in pairwise(edges))
    assert (edges[0][0], edges[-1][1]) == (start, end) if nodes else start == end


def test_appending_leaf_by_leaf_stores_every_subtree_once() -> None:
    stored: dict[Node, bytes] = {}
    for index, leaf in enumerate(LEAVES):
        stored[Node(0, index)] = leaf
        for node in completed_by(index):
            assert node not in stored
            below = Node(node.level - 1, node.place * 2)
            right = Node(below.level, below.place + 1)
            stored[node] = node_hash(stored[below], stored[right])
        assert span_hash((0, index + 1), stored.__getitem__) == Leaves(LEAVES[: index + 1]).root


def test_hashes_of_another_size_are_refused() -> None:
    tree = Leaves(LEAVES[:2])
    assert not verify_inclusion(LEAVES[0], 0, 2, [LEAVES[1] + b"\0"], tree.root)
    assert len(tree.root) == HASH_BYTES
