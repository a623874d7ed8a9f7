"""The running children of a mesh, by name, in the order in which they started."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from darkbloom_local import leftovers
from darkbloom_local.environment import inherited
from darkbloom_local.errors import LocalError
from darkbloom_local.process import Child, Command, tail


class Children:
    """Starts, finds and ends processes. Must be used from the thread of the event loop."""

    def __init__(self, record: Path) -> None:
        self._record = record
        self._children: dict[str, Child] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._children

    def __getitem__(self, name: str) -> Child:
        try:
            return self._children[name]
        except KeyError:
            raise LocalError(f"{name} does not run here") from None

    @property
    def names(self) -> list[str]:
        """Who runs, in order of start."""
        return list(self._children)

    @property
    def pids(self) -> Mapping[str, int]:
        """Process ids by name."""
        return {name: child.pid for name, child in self._children.items()}

    def end_leftovers(self) -> int:
        """End what an earlier run left behind; return how many there were."""
        return leftovers.end(self._record)

    def start(self, command: Command) -> Child:
        """Start a command and keep it."""
        return self.adopt(Child.start(command))

    def adopt(self, child: Child) -> Child:
        """Keep a child that somebody else started in this thread."""
        self._children[child.name] = child
        leftovers.record(self._record, self._children.values())
        return child

    def check(self) -> None:
        """Return if everybody runs.

        Raises:
            ChildDiedError: Somebody ended.
        """
        for child in self._children.values():
            child.check()

    async def stop(self, name: str, grace_s: float) -> int:
        """Stop one child in order and forget it; return its exit code."""
        child = self[name]
        code = await asyncio.to_thread(child.stop, grace_s)
        self._forget(name, child)
        return code

    def kill(self, name: str) -> None:
        """End one child at once and forget it: kill -9."""
        child = self[name]
        child.kill()
        self._forget(name, child)

    def kill_all(self) -> None:
        """End everybody at once; a stop that is under way then returns."""
        for child in self._children.values():
            child.kill()

    async def stop_all(self, names: Iterable[str], grace_s: float) -> None:
        """Stop these children at the same time."""
        present = [name for name in names if name in self._children]
        async with asyncio.TaskGroup() as stops:
            for name in present:
                stops.create_task(self.stop(name, grace_s))

    def _forget(self, name: str, child: Child) -> None:
        if self._children.get(name) is child:
            del self._children[name]
            leftovers.record(self._record, self._children.values())


async def run_once(
    name: str, argv: Sequence[str], environment: Mapping[str, str], log: Path, timeout_s: float
) -> None:
    """Run a command to its end.

    Raises:
        LocalError: It failed or took too long; the message carries the end of its log.
    """
    child = Child.start(Command(name=name, argv=argv, env=inherited() | dict(environment), log=log))
    try:
        await asyncio.to_thread(child.wait, timeout_s)
    finally:
        child.kill()
    if child.exit_code:
        end = "".join(f"  | {line}\n" for line in tail(log, 12))
        raise LocalError(f"{name} failed (exit code {child.exit_code}); end of {log}:\n{end}")
