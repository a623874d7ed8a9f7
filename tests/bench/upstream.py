"""A scripted OpenAI endpoint: what the proxy under test forwards to.

`python -m tests.bench.upstream PORT CORE`. It reads `tokens` and `interval_s` from the last user
message (`/script {…}`, as our scripted engine does) and answers with that many one-word chunks.
Raw asyncio, so that it is never what is measured.
"""

import asyncio
import json
import sys
from typing import Any

import uvloop
from darkbloom_mesh.clock import SystemClock

from tests.bench.placement import pin_self

HEAD_STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
# A proxy may take an answer that repeats one chunk for a broken model, and end it.
WORDS = ("the ", "quiet ", "mesh ", "carries ", "sealed ", "words ", "between ", "strangers ")
_COMMON = '"id":"chatcmpl-bench","created":1700000000,"model":"bench"'


def chunk_event(text: str | None, finish: str | None) -> bytes:
    """Return one server-sent event of an answer."""
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = f'{{{_COMMON},"object":"chat.completion.chunk","choices":[{json.dumps(choice)}]}}'
    return _chunked(f"data: {body}\n\n".encode())


def _chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_EVENTS = tuple(chunk_event(word, None) for word in WORDS)


def script_of(body: dict[str, Any]) -> tuple[int, float]:
    """Return (tokens, seconds between chunks) that a request asks for."""
    text = body["messages"][-1]["content"]
    if not isinstance(text, str):
        text = "".join(part.get("text", "") for part in text)
    script = json.loads(text.removeprefix("/script ")) if text.startswith("/script ") else {}
    return int(script.get("tokens", 16)), float(script.get("interval_s", 0.0))


async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer requests on one connection until it closes."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            body = json.loads(await reader.readexactly(length))
            tokens, interval_s = script_of(body)
            if body.get("stream"):
                await _stream(writer, tokens, interval_s)
            else:
                _whole(writer, tokens)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def _stream(writer: asyncio.StreamWriter, tokens: int, interval_s: float) -> None:
    writer.write(HEAD_STREAM)
    clock = SystemClock()
    due = clock.monotonic()
    for number in range(tokens):
        if interval_s and number:
            due += interval_s
            await clock.sleep(max(0.0, due - clock.monotonic()))
        writer.write(_EVENTS[number % len(_EVENTS)])
        await writer.drain()
    writer.write(chunk_event(None, "stop") + _chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n")


def _whole(writer: asyncio.StreamWriter, tokens: int) -> None:
    text = "".join(WORDS[number % len(WORDS)] for number in range(tokens))
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 8, "completion_tokens": tokens, "total_tokens": tokens + 8}
    body = (
        f'{{{_COMMON},"object":"chat.completion","choices":[{json.dumps(choice)}],'
        f'"usage":{json.dumps(usage)}}}'
    ).encode()
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)


async def main(port: int) -> None:
    """Serve until the process ends."""
    server = await asyncio.start_server(serve_one, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    pin_self(int(sys.argv[2]))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1])))
