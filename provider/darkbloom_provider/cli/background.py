"""What the commands of the background service share."""

import os

from darkbloom_provider.cli import context
from darkbloom_provider.service.background import Background
from darkbloom_provider.service.manager import manager_here
from darkbloom_provider.service.program import program_here


def background() -> Background:
    """Return the background service of this home.

    Raises:
        ServiceError: this system has no service manager that we know.
    """
    home = context.config().folders
    return Background(
        home=home,
        manager=manager_here(),
        program=program_here(home.app),
        # What the service inherits, the `provider.toml` with it.
        environment={**os.environ, **context.carried()},  # noqa: TID251 - as above
    )
