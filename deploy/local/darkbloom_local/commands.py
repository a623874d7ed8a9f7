"""Short commands of the rooms: run one, take its output."""

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from darkbloom_local.errors import LocalError

_TIMEOUT_S = 300.0
_COMPLAINT_CHARS = 2000


async def output_of(
    argv: Sequence[str],
    environment: Mapping[str, str],
    *,
    accept: Collection[int] = (0,),
    timeout_s: float = _TIMEOUT_S,
) -> bytes:
    """Run a command to its end and return what it printed.

    Raises:
        LocalError: Its exit code is not in `accept`; the message carries its complaint.
        TimeoutError: It took longer than `timeout_s`; it was killed.
    """
    process = await asyncio.create_subprocess_exec(
        *argv,
        env=dict(environment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(timeout_s):
            output, complaint = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode not in accept:
        reason = complaint.decode("utf-8", "replace").strip()[-_COMPLAINT_CHARS:]
        command = " ".join(argv[2:5])
        raise LocalError(f"{command} failed (exit code {process.returncode}): {reason}")
    return output


def json_object(output: bytes) -> dict[str, Any]:
    """Return the JSON object that is the last line of a command's output.

    Raises:
        LocalError: It is none.
    """
    lines = output.decode("utf-8", "replace").strip()
    for text in (lines, lines.rpartition("\n")[2]):
        try:
            found = json.loads(text)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    raise LocalError("a command printed no JSON object where one was promised")
