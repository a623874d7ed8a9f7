"""Load commands that are under way, and those that must not be repeated yet (section 14)."""

from dataclasses import dataclass
from enum import StrEnum

REPEAT_S = 120.0
AFTER_REFUSAL_S = 30.0
_SWEEP_ABOVE = 1024


class LoadEnd(StrEnum):
    """How a load command ended; a closed list."""

    LOADED = "loaded"
    DRAINING = "draining"
    MEMORY = "memory"
    FAILED = "failed"


@dataclass(slots=True)
class _Command:
    until: float
    running: bool


class PendingLoads:
    """Commands by provider and build; bounded by their expiry.

    Invariant: a command is not repeated while it stands here.
    """

    def __init__(self) -> None:
        self._commands: dict[tuple[str, str], _Command] = {}

    def sent(self, provider_id: str, build: str, now: float) -> None:
        """Note a command: not again for two minutes, whatever becomes of it."""
        if len(self._commands) > _SWEEP_ABOVE:
            self.expire(now)
        self._commands[provider_id, build] = _Command(now + REPEAT_S, running=True)

    def ended(self, provider_id: str, build: str, end: LoadEnd, now: float) -> None:
        """Note the answer: done, or not again for half a minute."""
        command = self._commands.get((provider_id, build))
        if command is None:
            return
        if end is LoadEnd.LOADED:
            del self._commands[provider_id, build]
            return
        command.running = False
        if end in (LoadEnd.DRAINING, LoadEnd.MEMORY):
            command.until = now + AFTER_REFUSAL_S

    def left(self, provider_id: str) -> None:
        """Forget the commands of a provider that is gone."""
        for key in [key for key in self._commands if key[0] == provider_id]:
            del self._commands[key]

    def standing(self) -> list[tuple[str, str]]:
        """Return providers and builds of all commands."""
        return list(self._commands)

    def expire(self, now: float) -> None:
        """Forget what is over."""
        for key in [key for key, one in self._commands.items() if one.until <= now]:
            del self._commands[key]

    def stands(self, provider_id: str, build: str, now: float) -> bool:
        """Return whether no command for this build may be sent to that provider now."""
        command = self._commands.get((provider_id, build))
        return command is not None and command.until > now

    def loading(self, now: float) -> set[str]:
        """Return the providers that are loading anything."""
        return {
            name for (name, _), one in self._commands.items() if one.running and one.until > now
        }

    def running(self, now: float, build: str) -> set[str]:
        """Return the providers that are loading one build."""
        return {
            provider_id
            for (provider_id, name), one in self._commands.items()
            if name == build and one.running and one.until > now
        }

    def count(self, now: float, build: str = "") -> int:
        """Return how many loads run, of one build or of all."""
        return sum(
            one.running and one.until > now and build in ("", name)
            for (_, name), one in self._commands.items()
        )
