"""Write docs/openapi.json, the document that a gateway serves, or `--check` that it is fresh.

It is taken from a gateway that is wired but never started, so that nothing needs to run.
"""

from __future__ import annotations

import asyncio
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import httpx
from darkbloom_gateway.app import Worker
from darkbloom_gateway.config import GatewayConfig
from darkbloom_mesh.clock import SystemClock
from darkbloom_mesh.config import Secret
from darkbloom_mesh.serve import Service

PAGE = Path(__file__).resolve().parent.parent / "docs/openapi.json"


async def described() -> str:
    """Return the document's text."""
    config = GatewayConfig(environment="development", redis_url=Secret("redis://127.0.0.1:1"))
    clock = SystemClock()
    async with Service(
        config, room="gateway", version=version("darkbloom-gateway"), clock=clock, signals=False
    ) as service:
        application = Worker(config, service, number=0, clock=clock).application()
        transport = httpx.ASGITransport(cast("Any", application))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            document = (await client.get("/openapi.json")).raise_for_status().json()
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    """Write or compare."""
    text = asyncio.run(described())
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text)
        return 0
    if PAGE.exists() and PAGE.read_text() == text:
        return 0
    print("docs/openapi.json is stale: run make openapi", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
