"""Each block of the quickstart, run as it is printed, where its tool is here."""

import asyncio
import contextlib
import io
import re
import shutil
from pathlib import Path

import pytest

from tests.component.gateway import node
from tests.component.gateway.harness import Harness
from tests.component.gateway.neighbours import API_KEY

pytestmark = pytest.mark.asyncio(loop_scope="session")

PAGE = Path(__file__).parents[3] / "docs/quickstart.md"
# What follows that heading needs machines to seal to: tests/mesh/test_end_to_end_client.py.
TEXT = PAGE.read_text().split("\n## End to end\n")[0]
BLOCKS = re.findall(r"```(sh|python|js)\n(.*?)```", TEXT, flags=re.DOTALL)
TOOLS = {"sh": ["sh", "-c"], "js": ["node", "--input-type=module", "-e"]}


def run_here(source: str, output: io.StringIO) -> None:
    """Run Python without the seconds that importing the SDKs again would take."""
    with contextlib.redirect_stdout(output):
        exec(compile(source, PAGE.name, "exec"), {})  # noqa: S102 - our own page


async def run_there(command: list[str], output: io.StringIO) -> None:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=node.ROOM,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(100):
        said, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    output.write(said.decode())


@pytest.mark.parametrize("number", range(len(BLOCKS)))
async def test_a_block_works_as_it_is_printed(
    house: Harness, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [language for language, _ in BLOCKS] == ["sh", "sh", "python", "python", "js", "js"]
    language, source = BLOCKS[number]
    if language == "sh" and shutil.which("curl") is None:
        pytest.skip("no curl on this machine")
    if language == "js":
        node.needed(*(name for name in node.PACKAGES if f'from "{name}"' in source))
    monkeypatch.setenv("DARKBLOOM_URL", house.url)
    monkeypatch.setenv("DARKBLOOM_API_KEY", API_KEY)
    monkeypatch.setenv("DARKBLOOM_MODEL", "tiny")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    output = io.StringIO()

    if language == "python":
        await asyncio.to_thread(run_here, source, output)
    else:
        await run_there([*TOOLS[language], source], output)

    assert "Hello" in output.getvalue()
    assert house.billing.holds
