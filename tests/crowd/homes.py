"""Where each agent of a crowd lives."""

from pathlib import Path

from darkbloom_provider.home import Home


def home_of(root: Path, number: int) -> Home:
    """Return the home of one agent of a crowd, made on first use."""
    home = Home(root=root / f"agent-{number:03}")
    home.create()
    return home
