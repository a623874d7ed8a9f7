"""Merkle trees of logs (RFC 9162 §2.1): roots, inclusion and consistency proofs. Pure hashing.

Leaves and nodes are hashed under different prefixes, so neither can pass for the other. A tree is
never held as a whole: whoever stores it keeps the hashes of its perfect subtrees, named by
(level, place), and every root and proof is folded from some of them.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

HASH_BYTES = 32
"""Size of every hash here."""
MAX_SIZE = 2**53 - 1
"""Most leaves of one tree: a number that every JSON reader keeps exact."""

_LEAF = b"\x00"
_NODE = b"\x01"


class Node(NamedTuple):
    """A perfect subtree: leaves `place << level` up to the next place."""

    level: int
    place: int


Lookup = Callable[[Node], bytes]
"""Gives the hash of a perfect subtree, 32 bytes."""
Span = tuple[int, int]
"""Leaves from the first up to, without, the second."""


def leaf_hash(entry: bytes) -> bytes:
    """Hash an entry; 32 bytes."""
    return hashlib.sha256(_LEAF + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash two subtrees that stand side by side; 32 bytes."""
    return hashlib.sha256(_NODE + left + right).digest()


def nodes_of(span: Span) -> list[Node]:
    """Return the perfect subtrees that a span consists of, from left to right."""
    start, end = span
    nodes: list[Node] = []
    while start < end:
        # The largest perfect subtree that begins here and does not reach beyond the end.
        level = (end - start).bit_length() - 1
        if start:
            level = min(level, (start & -start).bit_length() - 1)
        nodes.append(Node(level, start >> level))
        start += 1 << level

    return nodes


def completed_by(index: int) -> list[Node]:
    """Return the perfect subtrees above a leaf that this leaf completes, from the bottom up."""
    nodes: list[Node] = []
    level, place = 0, index
    while place & 1:
        level, place = level + 1, place >> 1
        nodes.append(Node(level, place))

    return nodes


def fold(hashes: Sequence[bytes]) -> bytes:
    """Join the subtrees of a span into its hash; none is the empty tree."""
    if not hashes:
        return hashlib.sha256().digest()

    joined = hashes[-1]
    for left in reversed(hashes[:-1]):
        joined = node_hash(left, joined)

    return joined


def span_hash(span: Span, lookup: Lookup) -> bytes:
    """Return the hash of a span out of stored subtrees."""
    return fold([lookup(node) for node in nodes_of(span)])


def inclusion_spans(index: int, size: int) -> list[Span]:
    """Return the spans whose hashes prove that a leaf is in a tree, from the bottom up.

    Raises:
        ValueError: there is no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError("the tree has no such leaf")

    spans: list[Span] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((start, middle))
            start = middle

    return spans[::-1]


def consistency_spans(old: int, new: int) -> list[Span]:
    """Return the spans whose hashes prove that a tree has grown out of an older one.

    Raises:
        ValueError: the old size is not from 1 to the new one.
    """
    if not 0 < old <= new:
        raise ValueError("the sizes are not of one growing tree")

    spans: list[Span] = []
    start, end, whole = 0, new, True
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((start, middle))
            start, whole = middle, False
    if not whole:
        spans.append((start, end))

    return spans[::-1]


def verify_inclusion(
    leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes
) -> bool:
    """Tell whether a path proves that a leaf is in a tree (RFC 9162 §2.1.3.2).

    Args:
        leaf: the hash of the entry.
        index: where it is said to be.
        size: leaves of the tree.
        path: hashes from the bottom up.
        root: the hash of the tree.
    """
    if not 0 <= index < size or not _plain(path):
        return False

    place, last, joined = index, size - 1, leaf
    for other in path:
        if last == 0:
            return False
        if place & 1 or place == last:
            joined = node_hash(other, joined)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            joined = node_hash(joined, other)
        place, last = place >> 1, last >> 1

    return last == 0 and joined == root


def verify_consistency(
    old: int, new: int, old_root: bytes, new_root: bytes, path: Sequence[bytes]
) -> bool:
    """Tell whether a path proves that one tree has grown out of another (RFC 9162 §2.1.4.2).

    Every tree has grown out of the empty one.
    """
    if not 0 <= old <= new or not _plain(path):
        return False
    if old == 0:
        return not path and old_root == fold(())
    if old == new:
        return not path and old_root == new_root

    hashes = [old_root, *path] if old & (old - 1) == 0 else list(path)
    if not hashes:
        return False
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1

    former = latter = hashes[0]
    for other in hashes[1:]:
        if last == 0:
            return False
        if place & 1 or place == last:
            former, latter = node_hash(other, former), node_hash(other, latter)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            latter = node_hash(latter, other)
        place, last = place >> 1, last >> 1

    return last == 0 and former == old_root and latter == new_root


class Leaves:
    """A small tree in memory, such as one batch of receipts."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self._leaves = leaves
        self._hashes: dict[Node, bytes] = {}

    @property
    def root(self) -> bytes:
        """The hash of all leaves."""
        return self._span((0, len(self._leaves)))

    def inclusion(self, index: int) -> list[bytes]:
        """Return the path of a leaf, from the bottom up; ValueError where there is none."""
        return [self._span(span) for span in inclusion_spans(index, len(self._leaves))]

    def consistency(self, old: int) -> list[bytes]:
        """Return the path from an older size; ValueError where it was never one."""
        return [self._span(span) for span in consistency_spans(old, len(self._leaves))]

    def _span(self, span: Span) -> bytes:
        return span_hash(span, self._node)

    def _node(self, node: Node) -> bytes:
        if node.level == 0:
            return self._leaves[node.place]
        known = self._hashes.get(node)
        if known is None:
            below, left = node.level - 1, node.place * 2
            known = node_hash(self._node(Node(below, left)), self._node(Node(below, left + 1)))
            self._hashes[node] = known
        return known


def _split(size: int) -> int:
    """Return the largest power of two below a size of 2 or more."""
    return 1 << ((size - 1).bit_length() - 1)


def _plain(path: Sequence[bytes]) -> bool:
    """Tell whether a path could be one: bounded, and of whole hashes."""
    return len(path) <= MAX_SIZE.bit_length() + 1 and all(len(one) == HASH_BYTES for one in path)
