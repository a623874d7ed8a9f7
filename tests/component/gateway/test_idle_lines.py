"""What a thousand clients cost that are connected and say nothing."""

import asyncio
import resource
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.component.gateway.test_connections import HEALTH, line
from tests.component.gateway.test_process import environment, process, ready

LINES = 1000
BAR_KB = 30 * 1024


@pytest.fixture
def room() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * LINES + 200
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"not run: {wanted} open files are not allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def resident_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        pytest.skip("not run: nothing here says how much memory a process has")
    return next(
        int(row.split()[1]) for row in status.read_text().splitlines() if row.startswith("VmRSS")
    )


@pytest.mark.usefixtures("room")
async def test_a_thousand_idle_lines_cost_little(tmp_path: Path) -> None:
    with process(environment(tmp_path, DARKBLOOM_LOG_LEVEL="error")) as child:
        host, port = (await ready(tmp_path))["http"].rsplit(":", 1)
        address = (host, int(port))

        async def ask(stack: AsyncExitStack) -> int:
            end = await stack.enter_async_context(line(address))
            end.say(HEALTH + b"user-agent: OpenAI/Python 2.0\r\naccept: application/json\r\n\r\n")
            return (await end.answer())[0]

        async with AsyncExitStack() as warm:
            assert await asyncio.gather(*(ask(warm) for _ in range(50))) == [200] * 50
        before = resident_kb(child.pid)
        async with AsyncExitStack() as stack:
            for _ in range(LINES // 50):
                assert set(await asyncio.gather(*(ask(stack) for _ in range(50)))) == {200}
            grown = resident_kb(child.pid) - before

    assert grown <= BAR_KB
