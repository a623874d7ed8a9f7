"""Changes of bytes that decoders trip over: flips, cuts, repeats, and numbers at their limits."""

from collections.abc import Callable, Iterator, Sequence
from random import Random  # noqa: TID251 - handed in, with its seed

LIMITS = (b"\x00", b"\xff", b"\x7f", b"\x80", b"\x5b" + b"\xff" * 8, b"\x30\x80", b"\x84" * 5)
"""Bytes that begin or end a length in CBOR and ASN.1."""


def mutations(seeds: Sequence[bytes], random: Random, count: int) -> Iterator[bytes]:
    """Yield changed seeds: each with one to four changes."""
    changes: Sequence[Callable[[bytes, Random], bytes]] = (_flip, _cut, _insert, _repeat, _limit)
    for _ in range(count):
        data = random.choice(seeds)
        for _ in range(random.randint(1, 4)):
            data = random.choice(changes)(data, random)
        yield data


def _place(data: bytes, random: Random) -> int:
    return random.randrange(len(data) + 1)


def _flip(data: bytes, random: Random) -> bytes:
    if not data:
        return data
    at = random.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << random.randrange(8))]) + data[at + 1 :]


def _cut(data: bytes, random: Random) -> bytes:
    start = _place(data, random)
    return data[:start] + data[start + random.randint(1, 16) :]


def _insert(data: bytes, random: Random) -> bytes:
    at = _place(data, random)
    return data[:at] + random.randbytes(random.randint(1, 8)) + data[at:]


def _repeat(data: bytes, random: Random) -> bytes:
    start = _place(data, random)
    part = data[start : start + random.randint(1, 64)]
    return data[:start] + part * random.randint(2, 8) + data[start:]


def _limit(data: bytes, random: Random) -> bytes:
    at = _place(data, random)
    limit = random.choice(LIMITS)
    return data[:at] + limit + data[at + len(limit) :]
