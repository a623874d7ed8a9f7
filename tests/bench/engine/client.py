"""Asks one side as any client would, and notes when what it says arrives."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.engine.servers import HOST, BenchError, Side

_ANSWER_S = 300.0


@dataclass(kw_only=True, slots=True)
class Answer:
    """When an answer came and how long it was; seconds of the monotonic clock."""

    asked: float
    first: float = 0.0
    ended: float = 0.0
    events: int = 0
    text: str = ""
    prompt_tokens: int = 0
    tokens: int = 0
    """As the side itself counts them."""

    @property
    def first_s(self) -> float:
        """Seconds to the first text."""
        return self.first - self.asked


async def ask(
    side: Side,
    prompt: str,
    max_tokens: int,
    on_first: Callable[[], None] | None = None,
) -> Answer:
    """Stream one greedy answer.

    Raises:
        BenchError: Another status than 200, or a stream that does not end well.
    """
    body = json.dumps(
        {
            "model": side.model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.0\r\nHost: {HOST}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    async with asyncio.timeout(_ANSWER_S):
        reader, writer = await asyncio.open_connection(HOST, side.port)
        answer = Answer(asked=time.monotonic())
        writer.write(head.encode() + body)
        status = await reader.readline()
        if b" 200 " not in status:
            raise BenchError(f"{side.name} answered {status.decode(errors='replace').strip()}")
        while (line := await reader.readline()) and line != b"data: [DONE]\n":
            if line.startswith(b"data: "):
                _take(answer, json.loads(line[6:]), on_first)
        writer.close()
    answer.ended = time.monotonic()
    if answer.tokens != max_tokens:
        raise BenchError(f"{side.name} gave {answer.tokens} tokens of {max_tokens}")
    return answer


def _take(answer: Answer, event: dict[str, object], on_first: Callable[[], None] | None) -> None:
    match event:
        case {"choices": [{"delta": {"content": str(text)}}, *_]} if text:
            if not answer.events:
                answer.first = time.monotonic()
                if on_first is not None:
                    on_first()
            answer.events += 1
            answer.text += text
        case {"usage": {"prompt_tokens": int(prompt), "completion_tokens": int(tokens)}}:
            answer.prompt_tokens, answer.tokens = prompt, tokens
        case _:
            pass
