"""`python -m tools.reference`: write the generated pages, or `--check` that they are fresh."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from tools.reference import enums, llms, machines, metrics, prices, protos, settings

ROOT = Path(__file__).resolve().parents[2]
PAGES: Mapping[str, Callable[[], str]] = {
    "docs/reference/protos.md": protos.page,
    "docs/reference/enums.md": enums.page,
    "docs/reference/prices.md": prices.page,
    "docs/reference/metrics.md": metrics.page,
    "docs/reference/settings.md": settings.page,
    "docs/reference/machines.md": machines.page,
    "llms.txt": llms.page,
    "services/gateway/darkbloom_gateway/pages/llms.txt": llms.served,
    "services/gateway/darkbloom_gateway/pages/llms-full.txt": llms.full,
}
"""Path to what writes it."""


def stale() -> list[str]:
    """Return the pages that the code no longer says."""
    return [
        name
        for name, write in PAGES.items()
        if not (ROOT / name).exists() or (ROOT / name).read_text() != write()
    ]


def main() -> int:
    """Write or compare."""
    if "--check" in sys.argv[1:]:
        found = stale()
        for name in found:
            print(f"{name} is stale: run make reference", file=sys.stderr)
        return 1 if found else 0
    for name, write in PAGES.items():
        path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(write())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
