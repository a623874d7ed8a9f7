"""What the load generator counts, fed by hand."""

import asyncio
from typing import cast

import pytest

from tests.bench.load import clean, percentile_ms
from tests.bench.wire import Connection, Exchange

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b"9\r\ndata: {}\n\n\r\n"
DONE = b"data: [DONE]"
END = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


class Wire(asyncio.Transport):
    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent = bytes(data)


async def exchange(pieces: list[bytes]) -> Exchange:
    connection = Connection(done=DONE, keep_arrivals=True)
    connection.connection_made(Wire())
    asking = asyncio.ensure_future(connection.send(b"POST"))
    await asyncio.sleep(0)  # noqa: TID251 - a turn of the loop
    for piece in pieces:
        connection.data_received(piece)
    return await asking


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
async def test_events_are_counted_however_the_answer_is_cut(size: int) -> None:
    answer = HEAD + EVENT * 5 + END

    found = await exchange([answer[at : at + size] for at in range(0, len(answer), size)])

    assert (found.status, found.events, found.done) == (200, 6, True)
    assert sum(events for _, events in found.arrivals) == 6


async def test_a_whole_answer_ends_with_its_length() -> None:
    found = await exchange([b"HTTP/1.1 429 Too Many\r\nContent-Length: 4\r\n\r\n", b"{", b"  }"])

    assert (found.status, found.events, found.done) == (429, 0, False)


async def test_a_lost_connection_fails_the_exchange() -> None:
    connection = Connection(done=DONE, keep_arrivals=False)
    connection.connection_made(cast("asyncio.BaseTransport", Wire()))
    asking = asyncio.ensure_future(connection.send(b"POST"))
    await asyncio.sleep(0)  # noqa: TID251 - a turn of the loop
    connection.connection_lost(None)

    with pytest.raises(ConnectionError):
        await asking


@pytest.mark.parametrize(
    ("arrivals", "expected"),
    [
        ([(0.0, 1), (0.02, 1), (0.04, 1)], True),
        ([(0.0, 1), (0.065, 2)], True),
        ([(0.0, 1), (0.08, 1)], False),
        ([(0.0, 1), (0.01, 5), (0.16, 1)], True),
        ([(0.0, 1), (0.08, 3)], False),
        ([], False),
    ],
)
def test_a_stream_is_clean_while_no_event_is_late(
    arrivals: list[tuple[float, int]], expected: bool
) -> None:
    assert clean(Exchange(started=0.0, arrivals=arrivals), 0.02) is expected


def test_a_percentile_of_few_is_one_of_them() -> None:
    assert percentile_ms([0.001, 0.002, 0.003], 0.99) == 3
