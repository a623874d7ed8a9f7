"""Our engine behind the smallest HTTP server that streams: what stands opposite `mlx_lm.server`.

`python -m tests.bench.engine.serving FOLDER PORT ROWS`. The engine is the one that providers run,
driven through its interface. The HTTP around it is lean, as theirs is: one line of JSON a delta.
"""

import asyncio
import json
import secrets
import sys
from pathlib import Path

import msgspec
from darkbloom_edge.delta import Delta
from darkbloom_edge.request import ChatRequest
from darkbloom_mesh.clock import SystemClock
from darkbloom_provider.engine.interface import Build, Job, Outcome
from darkbloom_provider.engine.limits import EngineLimits
from darkbloom_provider.engine.local import LocalEngine
from darkbloom_provider.engine.mlx.loader import MlxLoader
from darkbloom_provider.engine.prefix.cache import PrefixCache
from darkbloom_provider.waiting import first_of

BUILD = "bench/model"
_WEIGHTS = "0" * 64
_KV_BYTES = 4 << 30
_CACHE_BYTES = 1 << 28
_BOUND = 1 << 20


class _Stream:
    """A sink that writes events to a socket."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.over = asyncio.Event()
        self._writer = writer

    def on_delta(self, delta: Delta) -> None:
        self._event({"choices": [{"index": 0, "delta": {"content": delta.text}}]})

    def on_end(self, outcome: Outcome) -> None:
        usage = outcome.usage
        self._event(
            {
                "choices": [],
                "usage": {
                    "prompt_tokens": usage.prompt_tokens,
                    "completion_tokens": usage.completion_tokens,
                },
            }
        )
        self._writer.write(b"data: [DONE]\n\n")
        self.over.set()

    def _event(self, event: dict[str, object]) -> None:
        self._writer.write(b"data: " + json.dumps(event).encode() + b"\n\n")


async def serve(folder: Path, port: int, rows: int) -> None:
    """Serve until the process is ended."""
    prefixes = PrefixCache(_CACHE_BYTES)
    engine = LocalEngine(
        loader=MlxLoader(prefixes=prefixes),
        limits=EngineLimits(kv_budget_bytes=_KV_BYTES, max_concurrency=rows),
        clock=SystemClock(),
        draw=secrets.randbits,
        prefixes=prefixes,
    )

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        body = json.loads(await reader.readexactly(length))
        request = msgspec.convert(
            {key: body[key] for key in ("messages", "max_tokens")} | {"model": BUILD}, ChatRequest
        )
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        stream = _Stream(writer)
        job = Job(
            job_id=secrets.token_hex(8),
            build_id=BUILD,
            request=request,
            prompt_bound=_BOUND,
            output_bound=_BOUND,
            cache_scope=b"bench",
        )
        await engine.submit(job, stream)
        # A client that hangs up takes its row with it.
        await first_of(stream.over.wait(), reader.read(1))
        if not stream.over.is_set():
            engine.cancel(job.job_id)
            await stream.over.wait()
        await writer.drain()
        writer.close()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(engine.run())
        await engine.load(Build(build_id=BUILD, directory=folder, weight_hash=_WEIGHTS))
        async with await asyncio.start_server(answer, "127.0.0.1", port, limit=1 << 24):
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
