"""Plays drills one after the other; a play that fails is a deviation, not an end."""

import asyncio
import tempfile
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.drills.drill import Drill, Outcome
from tests.drills.stage import Stage

Say = Callable[[str], None]


async def played(drill: Drill, stage: Stage) -> Outcome:
    """Play one drill within its limit.

    Raises:
        TimeoutError: It took longer.
    """
    async with asyncio.timeout(drill.limit_s):
        return await drill.play(stage)


def play_all(
    drills: Iterable[Drill], *, seed: int, say: Say, keep: Path | None = None
) -> dict[str, dict[str, Any]]:
    """Play drills in order; return each one's part of the last line.

    Args:
        drills: Which.
        seed: Of their dice.
        say: Gets a line for each step.
        keep: Where each drill's files stay; None removes them.
    """
    found: dict[str, dict[str, Any]] = {}
    for drill in drills:
        if missing := drill.missing():
            say(f"{drill.name}: skipped, {missing}")
            found[drill.name] = {"skipped": missing, "expected": drill.expected}
            continue
        say(f"{drill.name}: {drill.claim}")
        found[drill.name] = _one(drill, seed, say, keep)
        say(_told(drill, found[drill.name]))
    return found


def unexpected(results: dict[str, dict[str, Any]]) -> list[str]:
    """Return every deviation of all drills, with its name."""
    return [
        f"{name}: {text}"
        for name, result in results.items()
        for text in result.get("unexpected", ())
    ]


def skipped(results: dict[str, dict[str, Any]]) -> list[str]:
    """Return the names of the drills that this machine could not play."""
    return [name for name, result in results.items() if "skipped" in result]


def _one(drill: Drill, seed: int, say: Say, keep: Path | None) -> dict[str, Any]:
    def progress(text: str) -> None:
        say(f"  {text}")

    with tempfile.TemporaryDirectory(prefix="darkbloom-drill-", ignore_cleanup_errors=True) as own:
        home = Path(own) if keep is None else keep / drill.name
        home.mkdir(parents=True, exist_ok=True)
        stage = Stage(home=home, seed=seed, progress=progress)
        try:
            return drill.result(asyncio.run(played(drill, stage)))
        except Exception as error:  # noqa: BLE001 - whatever failed, the other drills are played
            for line in "".join(traceback.format_exception(error)).splitlines():
                progress(line)
            said = "; ".join(_reasons(error))
            return {"expected": drill.expected, "unexpected": [f"did not end: {said}"]}


def _reasons(error: BaseException) -> list[str]:
    """Return what went wrong, in the words of whoever noticed."""
    if isinstance(error, BaseExceptionGroup):
        return [text for one in error.exceptions for text in _reasons(one)]
    return [str(error) or type(error).__name__]


def _told(drill: Drill, result: dict[str, Any]) -> str:
    if "recovery_s" not in result:
        return f"{drill.name}: FAILED, {result['unexpected'][0]}"
    verdict = (
        f"UNEXPECTED: {'; '.join(result['unexpected'])}" if result["unexpected"] else "as said"
    )
    return (
        f"{drill.name}: lost {result['lost_requests']} requests and {result['lost_cents']} cents,"
        f" well again after {result['recovery_s']} s; expected: {drill.expected}; {verdict}"
    )
