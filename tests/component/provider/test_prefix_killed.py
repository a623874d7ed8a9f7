"""kill -9 while the SSD tier writes: what was whole is found, what was not is gone."""

import asyncio
import sys
from pathlib import Path

from darkbloom_mesh.clock import SystemClock
from darkbloom_provider.engine.prefix.cache import PrefixCache
from darkbloom_provider.engine.prefix.disk import SsdTier
from darkbloom_provider.engine.prefix.files import SCRATCH
from darkbloom_provider.engine.prefix.keys import CacheKeys
from darkbloom_provider.engine.prefix.limits import DiskLimits

from tests.unit.provider.engine.test_prefix_disk import Plain

ROOT = bytes(range(32))
TOKENS = list(range(4 * 64 + 1))
LIMITS = DiskLimits(floor_tokens=4, min_free_bytes=0, budget_bytes=1 << 30)
WRITER = """
import sys
from pathlib import Path
from darkbloom_mesh.clock import SystemClock
from tests.component.provider.test_prefix_killed import TOKENS, opened
from tests.unit.provider.engine.test_prefix_disk import Bytes

cache, tier = opened(Path(sys.argv[1]))
number = 0
while True:
    number += 1
    prefix = cache.plan(b"s" * 32 if number == 1 else number.to_bytes(32, "big"), "ab" * 32, TOKENS)
    cache.keep(prefix, 0, [Bytes(bytes([index]) * 300_000) for index in range(64)])
    tier.settle()
    print(number, flush=True)
"""


def opened(root: Path) -> tuple[PrefixCache, SsdTier]:
    tier = SsdTier(root, CacheKeys(ROOT), Plain(), SystemClock(), limits=LIMITS)
    cache = PrefixCache(0, block_tokens=4, disk=tier)
    cache.enter("org/model", "ab" * 32)
    return cache, tier


async def test_a_writer_that_is_killed_leaves_whole_blocks_and_no_orphan(tmp_path: Path) -> None:
    root = tmp_path / "kv3"
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, str(root), stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    async with asyncio.timeout(60):
        assert await child.stdout.readline() == b"1\n"
    # It writes the second one by now, block after block.
    child.kill()
    async with asyncio.timeout(30):
        await child.wait()

    cache, tier = opened(root)
    try:
        assert [path for path in root.rglob("*") if path.name.endswith(SCRATCH)] == []
        prefix = cache.plan(b"s" * 32, "ab" * 32, TOKENS)
        assert prefix is not None
        staged = (await cache.stage(prefix)).staged
        assert [block.nbytes for block in staged] == [300_000] * 64
        assert tier.counts.bad == 0
    finally:
        cache.close()
