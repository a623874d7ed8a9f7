"""Render chat templates of strangers in a process of their own, which may end badly.

Jinja's sandbox keeps a template from what it may not touch, and bounds what one operation makes;
the process bounds everything together: CPU, memory, files, time. It gets no environment, so there
is nothing in it to be found.
"""

import asyncio
import base64
import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, final

from darkbloom_mesh.errors import InvalidArgumentError, StoreUnavailableError

from darkbloom_registry.model import Rendering

WALL_S: Final = 25.0
"""Of one template, on a crowded machine; its CPU seconds are bounded more tightly."""
AT_ONCE: Final = 1
"""Each may fill its memory, and the registry beside it must live on."""
_FIELD: Final = "template_files"
_COMMAND: Final = (sys.executable, "-I", "-m", "darkbloom_registry.render_child")


@final
class ProcessRenderer:
    """Renders each template in a new process; `AT_ONCE` at a time."""

    def __init__(self, command: Sequence[str] = _COMMAND, wall_s: float = WALL_S) -> None:
        self._command = command
        self._wall_s = wall_s
        self._places = asyncio.Semaphore(AT_ONCE)

    async def render(self, files: Mapping[str, bytes], *, vision: bool) -> Rendering:
        """Return what the template in these files makes of the fixtures.

        Raises:
            InvalidArgumentError: It does not compile, or works without end.
            StoreUnavailableError: No process could be started, or all were busy for too long.
        """
        order = {
            "files": {name: base64.b64encode(data).decode() for name, data in files.items()},
            "vision": vision,
        }
        try:
            # Whoever is before us has to be done by then: his time is no fault of this template.
            async with asyncio.timeout(self._wall_s):
                await self._places.acquire()
        except TimeoutError:
            raise StoreUnavailableError("other templates are being rendered") from None
        try:
            async with asyncio.timeout(self._wall_s):
                said = await self._ask(json.dumps(order).encode())
        except TimeoutError:
            raise InvalidArgumentError("the chat template works without end", _FIELD) from None
        except OSError:
            raise StoreUnavailableError("templates cannot be rendered now") from None
        finally:
            self._places.release()
        if said is None:
            raise InvalidArgumentError("the chat template works or writes without end", _FIELD)
        if "fault" in said:
            raise InvalidArgumentError(str(said["fault"]), _FIELD)
        return Rendering(template_sha256=said["sha256"], fixtures=said["fixtures"])

    async def _ask(self, order: bytes) -> Any:
        """Return the process's answer; None where it ended without one."""
        child = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={},
        )
        try:
            answer, _ = await child.communicate(order)
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
        return json.loads(answer) if child.returncode == 0 else None
