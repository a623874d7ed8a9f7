"""The ready file: written once the router has taken this machine in, for whoever started it."""

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path

from darkbloom_provider.agent import Agent


async def announce(path: Path, agent: Agent, listeners: Mapping[str, str]) -> None:
    """Write `path` as JSON with the first registration: pid, listeners, and what was accepted."""
    await agent.registered.wait()
    standing = agent.standing
    facts = {
        "listeners": dict(listeners),
        "provider_id": standing.provider_id,
        "accepted_models": list(standing.accepted_models),
        "trust_level": standing.trust_level,
    }
    await asyncio.to_thread(write_ready, path, facts)


def write_ready(path: Path, facts: Mapping[str, object]) -> None:
    """Write the ready file atomically: this process and `facts`."""
    staged = path.with_suffix(f".{os.getpid()}")
    staged.write_text(json.dumps({"pid": os.getpid(), **facts}))
    staged.replace(path)
