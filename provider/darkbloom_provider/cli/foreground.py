"""Serving in this very process, until a signal or another command ends it."""

import os
from collections.abc import Callable

from darkbloom_mesh.serve import run

from darkbloom_provider import app
from darkbloom_provider.cli import context
from darkbloom_provider.config import ProviderConfig
from darkbloom_provider.errors import ProviderError
from darkbloom_provider.options import Options
from darkbloom_provider.schedule import Schedule
from darkbloom_provider.service.leaving import hand_over
from darkbloom_provider.zone import local_zone


def serve_here(config: ProviderConfig, options: Options) -> int:
    """Serve; returns the exit code.

    Raises:
        ProviderError: the agent cannot start.
    """
    for problem in config.problems():
        raise ProviderError(problem)
    if options.replace_s is not None:
        # Before the event loop, so that Ctrl-C ends the wait.
        config.folders.create()
        hand_over(config.folders, options.replace_s, force=options.force)
    refused: list[ProviderError] = []

    async def main() -> int:
        try:
            # Hardening scrubs the real environment of this process.
            return await app.serve(config, os.environ, options)  # noqa: TID251
        except ProviderError as error:
            refused.append(error)
            return 1

    code = run(main)
    if refused:
        raise refused[0]
    return code


def current_schedule() -> Callable[[], Schedule]:
    """Return what reads the owner's windows anew, on this machine's wall clock.

    The environment is looked at once, before it is hardened.
    """
    zone_name = os.environ.get("TZ")  # noqa: TID251 - the system's own variable

    def read() -> Schedule:
        return Schedule(windows=context.settings().windows, zone=local_zone(zone_name))

    return read
