"""A process that is asked to leave while an answer streams through it."""

import asyncio

from darkbloom_local.mesh import Mesh

from tests.mesh.harness import Consumer, Stream


async def streamed_past(mesh: Mesh, consumer: Consumer, name: str, *, words: int) -> Stream:
    """Stream an answer, ask a process to leave in its middle, and see that both end well."""
    async with (
        consumer.streaming(tokens=words, interval_s=0.02) as reading,
        asyncio.TaskGroup() as tasks,
    ):
        await reading.words(5)
        stopping = tasks.create_task(mesh.stop(name))
        stream = await reading.rest()

    assert stopping.result() == 0
    assert stream.error is None
    assert (stream.words, stream.done) == (words, 1)
    return stream
