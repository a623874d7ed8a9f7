"""What children inherit from the person's shell: everything but what configures us."""

import os
from collections.abc import Mapping

from darkbloom_local.errors import ProductionRefusedError

_OURS = ("DARKBLOOM_", "PG")
_STORES = frozenset({"DATABASE_URL", "REDIS_URL"})


def inherited(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a child, before its own variables are added.

    A stray `DARKBLOOM_ROUTER_…` or `PGHOST` must not reach into a local mesh.
    """
    found = process_environment() if environ is None else environ
    kept = {
        name: value
        for name, value in found.items()
        if not name.startswith(_OURS) and name not in _STORES
    }
    return kept | {"PYTHONUNBUFFERED": "1"}


def refuse_production(environ: Mapping[str, str] | None = None) -> None:
    """Return unless this is a production machine.

    Raises:
        ProductionRefusedError: `DARKBLOOM_ENV` says production.
    """
    found = process_environment() if environ is None else environ
    if found.get("DARKBLOOM_ENV", "").strip().lower() == "production":
        raise ProductionRefusedError(
            "DARKBLOOM_ENV=production: a local mesh runs in development mode only"
        )


def process_environment() -> Mapping[str, str]:
    """Return the environment of this process."""
    return os.environ  # noqa: TID251 - the one place that reads it
