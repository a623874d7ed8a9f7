"""The load generator, a process of its own: `python -m tests.bench.load`, a JSON task on its input.

Closed loop: each of `concurrency` connections sends its next request when the last answer has
ended. Prints one JSON object with counts and percentiles.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from typing import Any

import uvloop
from darkbloom_mesh.clock import SystemClock

from tests.bench.placement import pin_self
from tests.bench.task import Task, decode
from tests.bench.wire import Connection, Exchange, request_bytes

LATE_S = 0.05
"""An event this much after it was due makes its stream unclean."""
_CONNECT_S = 10.0
_MOST_FAILURES = 20
"""Of one connection; then it gives up, so that a broken server is not hammered."""


class Generator:
    """Sends the load of one task."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._payload = request_bytes(
            host=f"{task.host}:{task.port}",
            path=task.path,
            body=task.body.encode(),
            api_key=task.api_key,
        )
        self._answers: list[Exchange] = []
        self._failures: Counter[str] = Counter()

    async def run(self) -> dict[str, Any]:
        """Send it all and report."""
        task = self._task
        measured_from = time.monotonic() + task.warmup_s
        until = measured_from + task.seconds
        async with asyncio.TaskGroup() as workers:
            for number in range(task.concurrency):
                wait_s = task.stagger_s * number / task.concurrency
                workers.create_task(self._work(wait_s, until))
        return report(task, self._answers, self._failures, measured_from)

    async def _work(self, wait_s: float, until: float) -> None:
        await SystemClock().sleep(wait_s)
        connection: Connection | None = None
        sent = failed = 0
        limit = self._task.requests_each
        while failed < _MOST_FAILURES and time.monotonic() < until and (not limit or sent < limit):
            sent += 1
            try:
                if connection is None or connection.lost:
                    connection = await self._connect()
                async with asyncio.timeout(30.0 + self._task.seconds):
                    answer = await connection.send(self._payload)
            except (OSError, TimeoutError) as error:
                self._failures[type(error).__name__] += 1
                failed += 1
                connection = None
                continue
            if answer.status == 200 and (answer.done or not self._task.stream):
                self._answers.append(answer)
                continue
            self._failures[f"status {answer.status}"] += 1
            failed += 1
        if connection is not None:
            connection.close()

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_CONNECT_S):
            _, connection = await loop.create_connection(
                lambda: Connection(
                    done=self._task.done.encode(), keep_arrivals=bool(self._task.interval_s)
                ),
                self._task.host,
                self._task.port,
            )
        return connection


def report(
    task: Task, answers: list[Exchange], failures: dict[str, int], measured_from: float
) -> dict[str, Any]:
    """Turn what was seen into figures; times are milliseconds."""
    counted = [answer for answer in answers if answer.started >= measured_from] or answers
    if not counted:
        return {"requests_total": 0, "requests": 0, "failures": failures}
    span = max(answer.ended for answer in counted) - min(answer.started for answer in counted)
    latencies = sorted(answer.ended - answer.started for answer in counted)
    first = sorted(answer.first_byte - answer.started for answer in counted)
    events = sum(answer.events for answer in counted)
    found = {
        "requests_total": len(answers),
        "requests": len(counted),
        "events_total": sum(answer.events for answer in answers),
        "failures": failures,
        "requests_per_s": len(counted) / span,
        "events_per_s": events / span,
        "events_each": events / len(counted),
        "p50_ms": percentile_ms(latencies, 0.5),
        "p99_ms": percentile_ms(latencies, 0.99),
        "ttft_p50_ms": percentile_ms(first, 0.5),
        "ttft_p99_ms": percentile_ms(first, 0.99),
    }
    if task.interval_s:
        asked = task.concurrency * max(1, task.requests_each)
        found["clean_share"] = sum(clean(a, task.interval_s) for a in answers) / asked
    return found


def clean(answer: Exchange, interval_s: float) -> bool:
    """Tell whether each event came at most `LATE_S` after it was due.

    Due means: so many intervals after the stream's own first event.
    """
    if not answer.arrivals:
        return False
    began, seen = answer.arrivals[0]
    for when, events in answer.arrivals[1:]:
        # The first event of the piece is the one that waited longest.
        if when > began + seen * interval_s + LATE_S:
            return False
        seen += events
    return True


def percentile_ms(ordered: list[float], share: float) -> float:
    """Return a percentile of sorted seconds, in milliseconds."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000


if __name__ == "__main__":
    job = decode(sys.stdin.read())
    pin_self(job.core)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.stdout.write(json.dumps(runner.run(Generator(job).run())))
