"""The updater of this very installation."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from darkbloom_provider.config import ProviderConfig
from darkbloom_provider.errors import ProviderError
from darkbloom_provider.update.results import UpdateError, UpdateResult
from darkbloom_provider.update.source import read_keys
from darkbloom_provider.update.store import AppStore
from darkbloom_provider.update.updater import Updater

PACKAGE = "darkbloom-provider"


def updater_here(config: ProviderConfig, say: Callable[[str], None]) -> Updater:
    """Return the updater of this home.

    Raises:
        ProviderError: no gateway is configured.
        UpdateError: no release key is pinned.
    """
    if config.gateway is None:
        raise ProviderError(
            "no gateway is configured", "set DARKBLOOM_PROVIDER_GATEWAY, e.g. https://api.example"
        )
    return Updater(
        AppStore(config.folders.app),
        current=metadata.version(PACKAGE),
        platform=platform_here(),
        keys=read_keys(config.release_keys_file),
        gateway=config.gateway,
        plain=config.environment == "development",
        say=say,
    )


def require_managed(store: AppStore, executable: Path | None = None) -> None:
    """Refuse to install beside an installation that was not made by us.

    Raises:
        UpdateError: the running program is somebody else's to replace.
    """
    if not store.contains(executable or Path(sys.executable)):
        raise UpdateError(
            UpdateResult.REPLACE_FAILED,
            "this program was not installed by its installer, so it does not replace itself",
            "update it the way you installed it, for example with git or pip",
        )


def platform_here() -> str:
    """Return this platform as releases call it."""
    system = "macos" if sys.platform == "darwin" else sys.platform
    return f"{system}-{platform.machine()}"
